"""The parts of `inference.pod`: variables, tolerations, resources, mounts and what else a pod has several of.

What may not be asked for, since the operator needs it, is refused here, by field. How parts get into a pod is in
`reconcile.objects`.
"""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from kaito_core.api.messages import fault, shown
from kaito_core.api.nodes import GPU_RESOURCES
from kaito_core.api.serving import ADAPTERS_PATH, KEPT_PATH, WEIGHTS_PATH
from kaito_core.api.workspace.document import Document
from kaito_core.api.workspace.formats import LABEL_KEY, LABEL_VALUE, OBJECT_NAME, QUANTITY, VARIABLE, VOLUME_NAME
from kaito_core.api.workspace.freeform import FreeForm, check_shape

__all__ = [
    "CA_PATH",
    "MAX_LISTED",
    "OWN_PATHS",
    "RESERVED_LABELS",
    "RESERVED_VARIABLES",
    "RESERVED_VARIABLE_PREFIX",
    "RESERVED_VOLUMES",
    "RESERVED_VOLUME_PREFIX",
    "SHARED_PATH",
    "Affinity",
    "Annotations",
    "CaBundle",
    "EnvVar",
    "HostAlias",
    "Labels",
    "PodSecurity",
    "Resources",
    "Spread",
    "Toleration",
    "Volume",
    "VolumeMount",
]

MAX_LISTED = 32  # entries of a list or mapping of a pod
_LONGEST_TEXT = 4096

CA_PATH = "/etc/kaito/ca"  #: where containers find the certificates of `caBundle`

#: Prefixes of labels and annotations by which Kubernetes and the operator know the pods.
RESERVED_LABELS = (
    "kaito.sh/",
    "statefulset.kubernetes.io/",
    "apps.kubernetes.io/",
    "pod-template-hash",
    "controller-revision-hash",
)
#: Variables that the operator, torchrun and the device plugin set.
RESERVED_VARIABLES = (
    "HOME",
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCH_ELASTIC_SHUTDOWN_TIMEOUT",
    "NVIDIA_VISIBLE_DEVICES",
    "CUDA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
)
RESERVED_VARIABLE_PREFIX = "KAITO_"
#: Names of the volumes that the operator makes, and how those of adapters begin.
RESERVED_VOLUMES = ("adapters", "weights", "serving", "dshm", "tmp", "ca-bundle", "api-key")
RESERVED_VOLUME_PREFIX = "source-"
#: Paths of our own mounts: nothing is mounted over them, into them or around them.
OWN_PATHS = (ADAPTERS_PATH, f"{ADAPTERS_PATH}-source", WEIGHTS_PATH, KEPT_PATH, "/etc/kaito", "/dev/shm")
SHARED_PATH = "/tmp"  #: likewise, but others may be mounted into it


def _unreserved(keys: dict[str, str]) -> dict[str, str]:
    for key in keys:
        if key.startswith(RESERVED_LABELS):
            raise fault(f"must not have '{key}': the operator and Kubernetes know the pods by keys of this kind")
    return keys


Text = Annotated[str, Field(max_length=_LONGEST_TEXT)]
#: Labels of a pod.
Labels = Annotated[
    dict[Annotated[str, LABEL_KEY], Annotated[str, LABEL_VALUE]],
    Field(max_length=MAX_LISTED),
    AfterValidator(_unreserved),
]
#: Annotations of a pod.
Annotations = Annotated[
    dict[Annotated[str, LABEL_KEY], Text], Field(max_length=MAX_LISTED), AfterValidator(_unreserved)
]


class EnvVar(Document):
    """One environment variable.

    Attributes:
        name: Name of the variable.
        value: Its value.
        value_from: Where the value comes from instead, as in a container's env[].valueFrom. Only containers of the
            runtime's image get it, since other containers run images of adapters.
    """

    name: Annotated[str, VARIABLE]
    value: Text = ""
    value_from: FreeForm | None = None

    @model_validator(mode="after")
    def _is_free(self) -> Self:
        if self.name in RESERVED_VARIABLES or self.name.startswith(RESERVED_VARIABLE_PREFIX):
            raise fault(f"must not set '{self.name}', which the operator, torchrun or the device plugin sets")
        if self.value and self.value_from is not None:
            raise fault("must have value or valueFrom, got both")
        return self


class Toleration(Document):
    """A taint that the pods tolerate.

    Attributes:
        key: Key of the taint; empty, with the operator Exists, for every taint.
        operator: Equal, the default, or Exists.
        value: Value of the taint, for Equal.
        effect: NoSchedule, PreferNoSchedule or NoExecute; empty for all.
        toleration_seconds: How long a pod stays after a taint of the effect NoExecute came.
    """

    key: Annotated[str, Field(max_length=LABEL_KEY.longest)] = ""
    operator: Literal["", "Equal", "Exists"] = ""
    value: Annotated[str, LABEL_VALUE] = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""
    toleration_seconds: int | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.operator == "Exists" and self.value:
            raise fault("must have no value for the operator Exists")
        if not self.key and self.operator != "Exists":
            raise fault("must have a key for the operator Equal")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise fault("must have the effect NoExecute where it has tolerationSeconds")
        return self


def _quantity(value: object) -> object:
    return str(value) if type(value) is int else value


Quantity = Annotated[
    str,
    QUANTITY,
    BeforeValidator(_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": QUANTITY.pattern, "maxLength": QUANTITY.longest}),
]


def _no_gpus(amounts: dict[str, str]) -> dict[str, str]:
    for name in amounts:
        if name in GPU_RESOURCES:
            raise fault(f"must not have '{name}': the preset and the nodes say how many GPUs a pod has")
    return amounts


Amounts = Annotated[dict[Annotated[str, LABEL_KEY], Quantity], Field(max_length=MAX_LISTED), AfterValidator(_no_gpus)]


class Resources(Document):
    """What the server's container asks for and may use, besides its GPUs.

    Attributes:
        requests: Amounts to reserve, by resource; in place of the preset's.
        limits: Most that may be used, by resource. The containers that run before the server get the same limits, which
            costs no quota.
    """

    requests: Amounts = Field(default_factory=dict)
    limits: Amounts = Field(default_factory=dict)


def _volume(value: Mapping[str, Any]) -> Mapping[str, Any]:
    name = value.get("name")
    if not isinstance(name, str):
        raise fault("must have a name")
    VOLUME_NAME.check(name)
    if name in RESERVED_VOLUMES or name.startswith(RESERVED_VOLUME_PREFIX):
        raise fault(f"must not be called '{name}', as a volume of the operator's is")
    if len(value) != 2:
        raise fault("must have a name and exactly one kind of volume")
    return value


#: A volume of a pod: its name, and a kind that Kubernetes knows.
Volume = Annotated[
    FreeForm,
    AfterValidator(_volume),
    WithJsonSchema(
        {
            "type": "object",
            "required": ["name"],
            "minProperties": 2,
            "maxProperties": 2,
            "properties": {
                "name": {
                    "description": "Name of the volume, for volumeMounts.",
                    "type": "string",
                    "pattern": VOLUME_NAME.pattern,
                    "maxLength": VOLUME_NAME.longest,
                }
            },
            "x-kubernetes-preserve-unknown-fields": True,
        }
    ),
]


def _mount_path(path: str) -> str:
    if not path.startswith("/") or ":" in path or ".." in path.split("/"):
        raise fault(f"must be an absolute path without ':' and '..', got {shown(path)}")
    place = PurePosixPath(path)
    for own in map(PurePosixPath, OWN_PATHS):
        if place.is_relative_to(own) or own.is_relative_to(place):
            raise fault(f"must not cover '{own}', where the operator mounts a volume, got {shown(path)}")
    if place == PurePosixPath(SHARED_PATH):
        raise fault(f"must not cover '{SHARED_PATH}', where the operator mounts a volume, got {shown(path)}")
    return path


class VolumeMount(Document):
    """Where the containers of the runtime's image find a volume.

    Attributes:
        name: Name of the volume.
        mount_path: Absolute path inside the containers.
        sub_path: Folder inside the volume, empty for its root.
        read_only: Whether nothing can be written to it.
    """

    name: Annotated[str, VOLUME_NAME]
    mount_path: Annotated[str, Field(max_length=_LONGEST_TEXT), AfterValidator(_mount_path)]
    sub_path: Text = ""
    read_only: bool = False


class HostAlias(Document):
    """Names of a host in the pods' /etc/hosts.

    Attributes:
        ip: Address of the host.
        hostnames: Its names.
    """

    ip: Annotated[str, Field(min_length=2, max_length=64)]
    hostnames: tuple[Annotated[str, OBJECT_NAME], ...] = Field(min_length=1, max_length=MAX_LISTED)


_TERM: Mapping[str, Any] = {"matchExpressions": [{}], "matchFields": [{}]}
_AFFINITY: Mapping[str, Any] = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [_TERM]},
        "preferredDuringSchedulingIgnoredDuringExecution": [{"preference": _TERM}],
    },
    "podAffinity": {},
    "podAntiAffinity": {},
}


def _affinity(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if unknown := sorted(set(value) - set(_AFFINITY)):
        raise fault(f"must have only {', '.join(_AFFINITY)}, got {shown(unknown[0])}")
    check_shape(value, _AFFINITY, "")
    return value


#: A pod's affinity; ours holds besides.
Affinity = Annotated[FreeForm, AfterValidator(_affinity)]


def _spread(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(value.get("topologyKey"), str):
        raise fault("must have a topologyKey")
    return value


#: A topology spread constraint; without a labelSelector it is about the pods of the Workspace.
Spread = Annotated[FreeForm, AfterValidator(_spread)]


class CaBundle(Document):
    """Certificates of authorities that the containers trust instead of those that their images bring.

    Attributes:
        config_map: Name of a ConfigMap in the Workspace's namespace.
        key: Key with the certificates in PEM form.
    """

    config_map: Annotated[str, OBJECT_NAME]
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] = "ca.crt"


class PodSecurity(Document):
    """The security context of the pods. What the containers need (a user who is not root, no privileges) is fixed.

    Attributes:
        run_as_user: User of all containers instead of 65532; not root.
        run_as_group: Group of all containers instead of 65532.
        fs_group: Group that owns the volumes.
        fs_group_change_policy: Always, or OnRootMismatch, which spares large volumes.
        supplemental_groups: Further groups of the containers.
        se_linux_options: SELinux labels, as in a pod's securityContext.
        sysctls: Kernel parameters, as in a pod's securityContext.
    """

    run_as_user: int | None = Field(default=None, ge=1, le=2**31 - 1, strict=True)
    run_as_group: int | None = Field(default=None, ge=0, le=2**31 - 1, strict=True)
    fs_group: int | None = Field(default=None, ge=0, le=2**31 - 1, strict=True)
    fs_group_change_policy: Literal["", "Always", "OnRootMismatch"] = ""
    supplemental_groups: tuple[Annotated[int, Field(ge=0, le=2**31 - 1)], ...] = Field(
        default=(), max_length=MAX_LISTED
    )
    se_linux_options: FreeForm = Field(default_factory=dict)
    sysctls: tuple[FreeForm, ...] = Field(default=(), max_length=MAX_LISTED)
