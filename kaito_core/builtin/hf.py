"""Adapters on the Hugging Face hub. The runtime downloads them; here the reference is checked."""

import re
from collections.abc import Iterable

from kaito_core.api.adapter import AdapterRef, FetchStep
from kaito_core.builtin.commands import hub_token, runtime_fetch
from kaito_core.errors import FieldError

__all__ = ["HfSource"]

_PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
_REFERENCE = re.compile(rf"hf://{_PART}/{_PART}(?:@{_PART})?(?:/{_PART})*", re.ASCII)


class HfSource:
    """Downloads from the hub with the runtime's image."""

    name = "hf"
    schemes = ("hf",)

    def check(self, ref: AdapterRef) -> Iterable[FieldError]:
        """Returns a fault where the location is not an hf:// reference."""
        if _REFERENCE.fullmatch(ref.location):
            return ()
        return (FieldError(ref.field, f"must be hf://owner/name[@revision][/folder], got '{ref.location}'"),)

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        """Returns the step that downloads into `target`, with the token of the Workspace's modelAccessSecret."""
        command = runtime_fetch((ref.location,), target, ref.digest)
        return FetchStep(command=command, secret_env=hub_token(ref.access_secret))
