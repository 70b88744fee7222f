"""The resource types that the emulated API serves: a table of built-in ones, and those of CRDs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kaito_testing.kube.shape import BuiltinShape, SchemaShape, Shape

__all__ = ["BUILTIN", "BY_KIND", "CRDS", "NAMESPACES", "Resource", "of_crd"]

_CUSTOM_VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource type in one version.

    Attributes:
        storage: (group, plural) under which objects are stored, the same for all versions of a type.
        generation: Whether metadata.generation counts the changes of what is desired.
        returns_deleted: Whether a delete answers with the object rather than a Status.
        schema: OpenAPI schema of a custom resource, None for built-in ones.
        columns: Printer columns of a custom resource.
        scale: Paths of a custom resource's scale, as its CRD has them.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    generation: bool = False
    returns_deleted: bool = False
    singular: str = ""
    list_kind: str = ""
    storage: tuple[str, str] = ("", "")
    storage_version: str = ""
    categories: tuple[str, ...] = ()
    schema: dict[str, Any] | None = field(default=None, hash=False, compare=False)
    columns: tuple[Mapping[str, Any], ...] = field(default=(), hash=False, compare=False)
    scale: Mapping[str, str] | None = field(default=None, hash=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "singular", self.singular or self.kind.lower())
        object.__setattr__(self, "list_kind", self.list_kind or f"{self.kind}List")
        object.__setattr__(self, "storage_version", self.storage_version or self.version)
        if self.storage == ("", ""):
            object.__setattr__(self, "storage", (self.group, self.plural))

    @property
    def api_version(self) -> str:
        """The apiVersion of manifests."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def storage_api_version(self) -> str:
        """The apiVersion of stored objects, whichever version wrote them."""
        group = self.storage[0]
        return f"{group}/{self.storage_version}" if group else self.storage_version

    @property
    def qualified(self) -> str:
        """The name in error messages, such as "deployments.apps"."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def custom(self) -> bool:
        """Whether a CRD declares it."""
        return self.schema is not None

    @property
    def shape(self) -> Shape:
        """How the values of its objects merge."""
        return BuiltinShape() if self.schema is None else SchemaShape(self.schema)

    @property
    def verbs(self) -> tuple[str, ...]:
        """The verbs, in the order of the API."""
        return _CUSTOM_VERBS if self.custom else tuple(sorted(_CUSTOM_VERBS))

    @property
    def storage_hash(self) -> str:
        """The storageVersionHash of discovery."""
        digest = hashlib.sha256(f"{self.group}/{self.storage_version}/{self.kind}".encode()).digest()
        return base64.b64encode(digest[:8]).decode()


_ALL = ("all",)  # the category of `kubectl get all`
_WORKLOAD: dict[str, Any] = {"subresources": ("status", "scale"), "generation": True, "categories": _ALL}
_RBAC = "rbac.authorization.k8s.io"

NAMESPACES = Resource(
    "", "v1", "namespaces", "Namespace", namespaced=False, short_names=("ns",), subresources=("status",)
)
CRDS = Resource(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    namespaced=False,
    short_names=("crd", "crds"),
    subresources=("status",),
    generation=True,
)
WEBHOOKS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
    generation=True,
)

BUILTIN: tuple[Resource, ...] = (
    NAMESPACES,
    CRDS,
    Resource("", "v1", "configmaps", "ConfigMap", short_names=("cm",)),
    Resource("", "v1", "secrets", "Secret"),
    WEBHOOKS,
    Resource(
        "",
        "v1",
        "services",
        "Service",
        short_names=("svc",),
        subresources=("status",),
        returns_deleted=True,
        categories=_ALL,
    ),
    Resource(
        "",
        "v1",
        "pods",
        "Pod",
        short_names=("po",),
        subresources=("status", "ephemeralcontainers"),
        generation=True,
        returns_deleted=True,
        categories=_ALL,
    ),
    Resource("", "v1", "nodes", "Node", namespaced=False, short_names=("no",), subresources=("status",)),
    Resource("", "v1", "events", "Event", short_names=("ev",)),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", short_names=("sa",), returns_deleted=True),
    Resource(
        "",
        "v1",
        "persistentvolumeclaims",
        "PersistentVolumeClaim",
        short_names=("pvc",),
        subresources=("status",),
        returns_deleted=True,
    ),
    Resource("apps", "v1", "deployments", "Deployment", short_names=("deploy",), **_WORKLOAD),
    Resource("apps", "v1", "statefulsets", "StatefulSet", short_names=("sts",), **_WORKLOAD),
    Resource("apps", "v1", "replicasets", "ReplicaSet", short_names=("rs",), **_WORKLOAD),
    Resource("apps", "v1", "controllerrevisions", "ControllerRevision"),
    Resource("batch", "v1", "jobs", "Job", subresources=("status",), generation=True),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource(
        "policy",
        "v1",
        "poddisruptionbudgets",
        "PodDisruptionBudget",
        short_names=("pdb",),
        subresources=("status",),
        generation=True,
    ),
    Resource(
        "scheduling.k8s.io",
        "v1",
        "priorityclasses",
        "PriorityClass",
        namespaced=False,
        short_names=("pc",),
        generation=True,
    ),
    Resource(_RBAC, "v1", "roles", "Role"),
    Resource(_RBAC, "v1", "rolebindings", "RoleBinding"),
    Resource(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False),
    Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
    Resource("events.k8s.io", "v1", "events", "Event", short_names=("ev",), storage=("", "events")),
)


#: Of Event, the only kind in two groups, the one of events.k8s.io.
BY_KIND = {resource.kind: resource for resource in BUILTIN}


def of_crd(crd: Mapping[str, Any]) -> list[Resource]:
    """The resource types of a CRD, one for each served version."""
    spec = crd["spec"]
    names = spec["names"]
    storage_version = next((version["name"] for version in spec["versions"] if version.get("storage")), "")
    return [
        Resource(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            kind=names["kind"],
            namespaced=spec["scope"] == "Namespaced",
            short_names=tuple(names.get("shortNames") or ()),
            subresources=tuple(version.get("subresources") or ()),
            scale=(version.get("subresources") or {}).get("scale"),
            generation=True,
            singular=names.get("singular", ""),
            list_kind=names.get("listKind", ""),
            storage_version=storage_version,
            categories=tuple(names.get("categories") or ()),
            schema=(version.get("schema") or {}).get("openAPIV3Schema") or {},
            columns=tuple(version.get("additionalPrinterColumns") or ()),
        )
        for version in spec["versions"]
        if version.get("served")
    ]
