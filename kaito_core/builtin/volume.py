"""Adapters on Kubernetes volumes: mounted read-only and copied, since a volume may be slow or shared."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from kaito_core.api.adapter import AdapterRef, FetchStep, fetch_step
from kaito_core.builtin.commands import refuse_secret
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
        yield from refuse_secret(ref, "Kubernetes mounts the volume, with Secrets that the volume itself names")

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        """Returns the step that copies the volume, links followed, into `target`."""
        name = volume_name(ref.name)
        return replace(
            fetch_step(ref, target, str(PurePosixPath(MOUNT_PATH) / ref.location)),
            mounts=({"name": name, "mountPath": MOUNT_PATH, "readOnly": True},),
            volumes=({"name": name, **(ref.volume or {})},),
        )
