"""Adapters in container images, pulled without a container runtime: the files are in /data, as for the kubelet."""

from collections.abc import Iterable

from kaito_core.api.fetching import Access, RemoteFile
from kaito_core.fetch.sources.registry import ImageReference, Repository

__all__ = ["ImageFetcher"]


class ImageFetcher:
    """Pulls the layers of an image. In a cluster the kubelet pulls images; `kaito up` has none."""

    name = "image"
    schemes = ("image",)

    def files(self, uri: str, access: Access) -> Iterable[RemoteFile]:
        """Returns the image's layers."""
        reference = ImageReference.parse(uri.removeprefix("image://"))
        return [file for file in Repository(reference, access).files() if file.kind == "layer"]
