"""The commands of built-in fetch steps: copy a folder with the image's shell, or download with the runtime."""

import shlex
from collections.abc import Mapping, Sequence

__all__ = ["TOKEN_KEY", "copy_folder", "hub_token", "runtime_fetch"]

TOKEN_KEY = "HF_TOKEN"  #: key of the Secret, as upstream has it, and the variable that the hub's client reads


def copy_folder(source: str, target: str, *, follow_links: bool = False) -> tuple[str, ...]:
    """Returns the command that copies the contents of one folder into another; the image needs a shell and cp."""
    flags = "-rL" if follow_links else "-r"
    folder, into = shlex.quote(f"{source.rstrip('/')}/."), shlex.quote(target)
    return ("/bin/sh", "-c", f"mkdir -p {into} && cp {flags} {folder} {into}")


def runtime_fetch(sources: Sequence[str], target: str, digest: str | None) -> tuple[str, ...]:
    """Returns the runtime's command that downloads sources into a folder and checks the digest of the files."""
    return ("kaito-runtime", "fetch", *sources, "--to", target, *(("--digest", digest) if digest else ()))


def hub_token(secret: str) -> Mapping[str, tuple[str, str]]:
    """Returns the environment with the hub's token; as an argument anybody who may read pods could see it."""
    return {TOKEN_KEY: (secret, TOKEN_KEY)} if secret else {}
