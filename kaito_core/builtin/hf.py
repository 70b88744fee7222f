"""Adapters on the Hugging Face hub. `kaito-fetch` downloads them; here the reference is checked."""

import re
from collections.abc import Iterable
from dataclasses import replace

from kaito_core.api.adapter import AdapterRef, FetchStep, fetch_step
from kaito_core.builtin.commands import hub_token
from kaito_core.errors import FieldError

__all__ = ["HfSource"]

_PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
_REFERENCE = re.compile(rf"hf://{_PART}/{_PART}(?:@{_PART})?(?:/{_PART})*", re.ASCII)


class HfSource:
    """Downloads from the hub."""

    name = "hf"
    schemes = ("hf",)

    def check(self, ref: AdapterRef) -> Iterable[FieldError]:
        """Returns a fault where the location is not an hf:// reference."""
        if _REFERENCE.fullmatch(ref.location):
            return ()
        return (FieldError(ref.field, f"must be hf://owner/name[@revision][/folder], got '{ref.location}'"),)

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        """Returns the step that downloads into `target`, with the token of the adapter's or the Workspace's Secret."""
        step = fetch_step(ref, target)
        return step if ref.secret else replace(step, secret_env=hub_token(ref.access_secret))
