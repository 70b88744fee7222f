"""Adapters in folders of prepared nodes: a hostPath volume, mounted read-only and copied.

The Pod Security level of the namespace decides whether pods may have hostPath volumes.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from kaito_core.api.adapter import AdapterRef, FetchStep, fetch_step
from kaito_core.builtin.commands import refuse_secret
from kaito_core.builtin.volume import MOUNT_PATH, volume_name
from kaito_core.errors import FieldError

__all__ = ["FileSource"]


class FileSource:
    """Copies a folder of the node that the pod runs on.

    `kaito up` takes `file:relative/path` too, and makes it absolute before it gets here.
    """

    name = "file"
    schemes = ("file",)

    def check(self, ref: AdapterRef) -> Iterable[FieldError]:
        """Returns a fault unless the path is absolute, names a folder and has no ".."."""
        try:
            parts = urlsplit(ref.location)
        except ValueError:
            return (FieldError(ref.field, f"must be file:///absolute/path, got '{ref.location}'"),)
        path = PurePosixPath(unquote(parts.path))
        if parts.netloc not in ("", "localhost"):
            fault = (
                f"must have three slashes (file:///absolute/path), got the host '{parts.netloc}' in '{ref.location}'"
            )
        elif not path.is_absolute():
            fault = (
                f"must be file:///absolute/path in a cluster, got '{ref.location}': a relative path is for `kaito up`, "
                "which resolves it against the Workspace's file"
            )
        elif ".." in path.parts or len(path.parts) == 1 or parts.query or parts.fragment:
            fault = f"must name a folder on the nodes, without '..', '?' and '#', got '{ref.location}'"
        else:
            return tuple(refuse_secret(ref, "files of a node are read without credentials"))
        return (FieldError(ref.field, fault),)

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        """Returns the step that copies the folder, links followed, into `target`."""
        name = volume_name(ref.name)
        path = unquote(urlsplit(ref.location).path)
        return replace(
            fetch_step(ref, target, MOUNT_PATH),
            mounts=({"name": name, "mountPath": MOUNT_PATH, "readOnly": True},),
            # "Directory" fails on a node without the folder; "" would create an empty one.
            volumes=({"name": name, "hostPath": {"path": path, "type": "Directory"}},),
        )
