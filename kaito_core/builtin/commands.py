"""The two commands that built-in fetch steps run: copy a folder with the image's shell, or let the runtime fetch."""

import shlex
from collections.abc import Mapping, Sequence

__all__ = ["TOKEN_KEY", "copy_folder", "hub_token", "runtime_fetch"]

TOKEN_KEY = "HF_TOKEN"  #: upstream's key of the Secret, and the variable that the hub's client reads


def copy_folder(source: str, target: str, *, follow_links: bool = False) -> tuple[str, ...]:
    """Returns the command that copies what is in one folder into another, for images that have a shell and cp."""
    flags = "-rL" if follow_links else "-r"
    folder, into = shlex.quote(f"{source.rstrip('/')}/."), shlex.quote(target)
    return ("/bin/sh", "-c", f"mkdir -p {into} && cp {flags} {folder} {into}")


def runtime_fetch(sources: Sequence[str], target: str, digest: str | None) -> tuple[str, ...]:
    """Returns the command of the runtime's image that downloads sources into a folder and checks their digest."""
    return ("kaito-runtime", "fetch", *sources, "--to", target, *(("--digest", digest) if digest else ()))


def hub_token(secret: str) -> Mapping[str, tuple[str, str]]:
    """Returns the environment that gives a step a hub's token; it is never among the arguments, which pods show."""
    return {TOKEN_KEY: (secret, TOKEN_KEY)} if secret else {}
