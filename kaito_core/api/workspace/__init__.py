"""The Workspace as a document: what a user may write, which edits are allowed, and the CRD made from it."""

from kaito_core.api.workspace.model import Workspace
from kaito_core.api.workspace.parse import parse_workspace

__all__ = ["Workspace", "parse_workspace"]
