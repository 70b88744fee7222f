"""Adapters in container images: as in KAITO, the files are in /data, and the image has a shell and cp."""

import re
from collections.abc import Iterable

from kaito_core.api.adapter import AdapterRef, FetchStep
from kaito_core.builtin.commands import copy_folder, refuse_secret
from kaito_core.errors import FieldError

__all__ = ["DATA_FOLDER", "ImageSource", "is_image_reference"]

DATA_FOLDER = "/data"

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})+(?::\d+)?|{_LABEL}:\d+|localhost)/"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:{_HOST})?{_PART}(?:/{_PART})*(?::\w[\w.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?", re.ASCII
)
_LONGEST = 512  # a repository name has at most 255 characters, a tag 128, a digest 72


def is_image_reference(text: str) -> bool:
    """Returns whether a text is a reference to a container image, with a SHA-256 digest if any.

    Source: https://github.com/distribution/reference/blob/main/reference.go (grammar)
    """
    return len(text) <= _LONGEST and _REFERENCE.fullmatch(text) is not None


class ImageSource:
    """Runs the adapter's own image, which copies its /data."""

    name = "image"
    schemes = ("image",)

    def check(self, ref: AdapterRef) -> Iterable[FieldError]:
        """Returns a fault where the location is not an image reference."""
        image = _image(ref)
        if not is_image_reference(image):
            yield FieldError(
                ref.field,
                "must be an image reference such as registry.example/adapters/style:1 or one with @sha256:..., its "
                f"path in lower case, got '{image[:_LONGEST]}'",
            )
        yield from refuse_secret(ref, "the kubelet pulls images, with imagePullSecrets")

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        """Returns the step that copies /data of the image into `target`."""
        return FetchStep(
            command=copy_folder(DATA_FOLDER, target),
            image=_image(ref),
            pull_secrets=ref.pull_secrets,
        )


def _image(ref: AdapterRef) -> str:
    return ref.location.removeprefix("image://")
