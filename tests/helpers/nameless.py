"""A container's surroundings without a container: a uid that has no name, and a root file system to read only."""

import pwd
import subprocess
from pathlib import Path

import pytest

__all__ = ["nameless"]

UID = 65532  # the images' own
# Two namespaces, since the first one's user has to be root in it for the mounts.
_SCRIPT = f"""
set -e
if [ -n "$1" ]; then mount --bind "$1" "$1"; fi
mount -o remount,bind,ro /
shift
cd /
exec unshare --user --map-user={UID} --map-group={UID} "$@"
"""


def nameless(home: str | None, scratch: Path | None = None) -> list[str]:
    """Returns the words before a command that start it as a uid without a name; the test is skipped where none can.

    Args:
        home: HOME; None: it is not set, and neither is any other variable that names the user or the pod.
        scratch: The one folder that can be written, which is also that of temporary files.
    """
    variables = [word for name in ("USER", "LOGNAME", "LNAME", "USERNAME", "HOME", "POD_ID") for word in ("-u", name)]
    variables += [f"HOME={home}"] if home is not None else []
    variables += [f"TMPDIR={scratch}"] if scratch is not None else []
    outer = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _SCRIPT, "sh", str(scratch or "")]
    if reason := _why_not([*outer, "id"]):
        pytest.skip(f"nothing can be started as a uid without a name: {reason}")
    return [*outer, "env", *variables]


def _why_not(command: list[str]) -> str:
    if any(entry.pw_uid == UID for entry in pwd.getpwall()):
        return f"{UID} has one here"
    try:
        tried = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        return str(error)
    return tried.stderr.strip() if tried.returncode else ""
