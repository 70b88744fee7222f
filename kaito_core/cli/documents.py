"""Reading Workspaces from files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from kaito_core.api.workspace.model import GROUP
from kaito_core.errors import ConfigError

__all__ = ["read_workspaces"]


def read_workspaces(path: Path) -> list[Any]:
    """Returns the Workspace documents of a YAML or JSON file, not yet parsed; other kinds are passed over.

    A `file:` URI with a relative path is made absolute: it is meant relative to the file it stands in.

    Raises:
        ConfigError: The file cannot be read, is no YAML, or holds no Workspace.
    """
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if document is not None]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no text file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}: is no YAML{where}: {getattr(error, 'problem', None) or error}") from error
    workspaces = [document for document in documents if _may_be_workspace(document)]
    if not workspaces:
        kinds = ", ".join(sorted({str(document.get("kind")) for document in documents})) or "nothing"
        raise ConfigError(f"{path}: holds no Workspace of the group {GROUP}, only {kinds}")
    for workspace in workspaces:
        for source in _sources(workspace):
            uri = source.get("uri")
            if isinstance(uri, str) and uri.startswith("file:") and not uri.startswith("file:/"):
                source["uri"] = f"file://{(path.parent / uri.removeprefix('file:')).resolve()}"
    return workspaces


def _may_be_workspace(document: object) -> bool:
    # Anything that is no mapping is kept: the parser says better what is wrong with it.
    return not isinstance(document, dict) or document.get("kind") in ("Workspace", None)


def _sources(document: object) -> Iterator[dict[str, Any]]:
    inference = document.get("inference") if isinstance(document, dict) else None
    adapters = inference.get("adapters") if isinstance(inference, dict) else None
    for adapter in adapters if isinstance(adapters, list) else []:
        source = adapter.get("source") if isinstance(adapter, dict) else None
        if isinstance(source, dict):
            yield source
