"""Where adapters come from: references, the steps that fetch them, and the Protocol of the sources in between.

What an adapter's files must contain is known to the runtime alone.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from kaito_core.errors import FieldError

__all__ = [
    "ADAPTER_NAME",
    "MAX_ADAPTERS",
    "MAX_ADAPTER_NAME",
    "AdapterRef",
    "AdapterSource",
    "FetchStep",
    "fetch_step",
]

MAX_ADAPTERS = 10  # upstream's limit
#: An adapter's name becomes a container name, a folder and a model id: a DNS-1123 label. The container is called
#: "adapter-NAME", which leaves 55 of the label's 63 characters.
MAX_ADAPTER_NAME = 55
ADAPTER_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,53}[a-z0-9])?")


@dataclass(frozen=True)  # without slots, which would leave no place to keep the revision
class AdapterRef:
    """Where one adapter comes from.

    Attributes:
        name: The adapter's name, unique in its Workspace.
        scheme: Which source reads the reference: "image", "volume", or the scheme of the URI ("https", "hf", ...).
        location: The image reference or URI; for a volume the path inside it.
        field: Path of the reference inside the Workspace, for messages.
        digest: "sha256:..." that the adapter's files must have, or None.
        pull_secrets: Names of image pull secrets.
        volume: The Kubernetes volume source, for the scheme "volume".
        access_secret: Name of the Secret whose key HF_TOKEN opens private repositories, "" for none.
        secret: Name of the Secret with the credentials of this adapter alone, "" for none.
    """

    name: str
    scheme: str
    location: str
    field: str
    digest: str | None = None
    pull_secrets: tuple[str, ...] = ()
    volume: Mapping[str, Any] | None = None
    access_secret: str = ""
    secret: str = ""

    @cached_property
    def revision(self) -> str:
        """Short hash of the reference; an adapter whose reference changes is another adapter under the same name."""
        volume = json.dumps(self.volume, sort_keys=True)
        parts = (self.name, self.scheme, self.location, self.digest or "", volume)
        # Another Secret is another try; without one the revision is what it was before there were any.
        text = "\n".join((*parts, self.secret) if self.secret else parts)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def folder(self) -> str:
        """Folder of the files under the adapters folder."""
        return f"{self.name}/{self.revision}"


@dataclass(frozen=True, slots=True)
class FetchStep:
    """A container that puts one adapter's files, or the weights, into a folder and ends.

    Attributes:
        command: Program and arguments.
        image: Image of the container, None for the runtime's own image.
        env: Environment, name to value.
        secret_env: Environment from Secrets, name to (name of the Secret, key).
        mounts: Volume mounts besides the adapter volume, as Kubernetes writes them.
        volumes: Pod volumes that `mounts` name.
        pull_secrets: Names of image pull secrets that the pod needs for `image`.
        pull_policy: imagePullPolicy of a container with an image of its own, "" for Kubernetes' default.
        secret: Name of a Secret whose keys the container gets as KAITO_SECRET_<key>, "" for none.
    """

    command: tuple[str, ...]
    image: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    mounts: tuple[Mapping[str, Any], ...] = ()
    volumes: tuple[Mapping[str, Any], ...] = ()
    pull_secrets: tuple[str, ...] = ()
    pull_policy: str = ""
    secret: str = ""


def fetch_step(ref: AdapterRef, target: str, *uris: str) -> FetchStep:
    """Returns the step that runs `kaito-fetch` in the runtime's image, where the pod half of a source must be.

    Args:
        ref: The adapter; its Secret goes to this container alone.
        target: The folder to put its files into.
        uris: What to fetch, by default the reference's location.
    """
    digest = ("--digest", ref.digest) if ref.digest else ()
    return FetchStep(command=("kaito-fetch", *(uris or (ref.location,)), target, *digest), secret=ref.secret)


@runtime_checkable
class AdapterSource(Protocol):
    """Turns references of its schemes into fetch steps. Pure: files are fetched by the step, in the pod."""

    @property
    def name(self) -> str:
        """Name of the source, unique across plugins."""

    @property
    def schemes(self) -> tuple[str, ...]:
        """The URI schemes that the source reads, each unique across plugins."""

    def check(self, ref: AdapterRef) -> Iterable[FieldError]:
        """Returns the faults of a reference, each with `ref.field` as its field."""

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        """Returns the step that puts adapter_config.json and the tensors directly into the folder `target`.

        Called for references in which `check` has found no fault.
        """
