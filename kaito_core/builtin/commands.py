"""The commands of built-in steps that are not `kaito-fetch`'s: a folder is copied with the image's shell."""

import shlex
from collections.abc import Iterable, Mapping

from kaito_core.api.adapter import AdapterRef
from kaito_core.errors import FieldError

__all__ = ["TOKEN_KEY", "copy_folder", "hub_token", "refuse_secret"]

TOKEN_KEY = "HF_TOKEN"  #: key of the Secret, as upstream has it, and the variable that the hub's client reads


def copy_folder(source: str, target: str, *, follow_links: bool = False) -> tuple[str, ...]:
    """Returns the command that copies the contents of one folder into another; the image needs a shell and cp."""
    flags = "-rL" if follow_links else "-r"
    folder, into = shlex.quote(f"{source.rstrip('/')}/."), shlex.quote(target)
    return ("/bin/sh", "-c", f"mkdir -p {into} && cp {flags} {folder} {into}")


def hub_token(secret: str) -> Mapping[str, tuple[str, str]]:
    """Returns the environment with the hub's token; as an argument anybody who may read pods could see it."""
    return {TOKEN_KEY: (secret, TOKEN_KEY)} if secret else {}


def refuse_secret(ref: AdapterRef, instead: str) -> Iterable[FieldError]:
    """Returns a fault where a Secret is named for a source that has no use for one."""
    if ref.secret:
        yield FieldError(
            f"{ref.field.rpartition('.')[0]}.secretName", f"has no use here, got '{ref.secret}': {instead}"
        )
