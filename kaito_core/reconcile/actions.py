"""What a plan may do: records, each of which may be executed more than once with the same result."""

from dataclasses import dataclass

from kaito_core.api import KubeObject

__all__ = ["Action", "AddContainer", "Annotate", "Apply", "Delete"]


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply a manifest on the server."""

    manifest: KubeObject


@dataclass(frozen=True, slots=True)
class Annotate:
    """Set an annotation of a pod, so that the kubelet refreshes its ConfigMap at once."""

    pod: str
    namespace: str
    uid: str
    annotation: str
    value: str


@dataclass(frozen=True, slots=True)
class AddContainer:
    """Let an ephemeral container fetch an adapter into a running pod."""

    pod: str
    namespace: str
    uid: str
    container: KubeObject


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one of the Workspace's objects or pods; only the one with `uid`."""

    kind: str
    name: str
    namespace: str
    uid: str


Action = Apply | Annotate | AddContainer | Delete
