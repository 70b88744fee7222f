"""Adapters on Kubernetes volumes: mounted read-only and copied, since a volume may be slow or shared."""

from collections.abc import Iterable
from pathlib import PurePosixPath

from kaito_core.api.adapter import AdapterRef, FetchStep
from kaito_core.builtin.commands import copy_folder
from kaito_core.errors import FieldError

__all__ = ["MOUNT_PATH", "VolumeSource", "volume_name"]

MOUNT_PATH = "/mnt/adapter-source"


def volume_name(adapter: str) -> str:
    """Returns the name of the pod volume that holds an adapter: a DNS label, since adapters' names fit one."""
    return f"source-{adapter}"


class VolumeSource:
    """Copies a folder of a volume of any kind that a pod can mount."""

    name = "volume"
    schemes = ("volume",)

    def check(self, ref: AdapterRef) -> Iterable[FieldError]:
        """Returns faults of the volume and of the path inside it."""
        if not ref.volume:
            yield FieldError(ref.field, "must be a volumeSource: volumes have no URI")
        elif len(ref.volume) != 1:
            yield FieldError(ref.field, f"must have exactly one kind of volume, got {', '.join(sorted(ref.volume))}")
        path = PurePosixPath(ref.location)
        if path.is_absolute() or ".." in path.parts:
            yield FieldError(ref.field, f"must have a path inside the volume, got '{ref.location}'")

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        """Returns the step that copies the volume, links followed, into `target`."""
        name = volume_name(ref.name)
        return FetchStep(
            command=copy_folder(str(PurePosixPath(MOUNT_PATH) / ref.location), target, follow_links=True),
            mounts=({"name": name, "mountPath": MOUNT_PATH, "readOnly": True},),
            volumes=({"name": name, **(ref.volume or {})},),
        )
