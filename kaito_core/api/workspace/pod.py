"""`inference.pod`: what the pods of a preset take along for their cluster, and how defaults are merged into it.

The same record is a setting of the operator (the defaults), and what the hook `kaito_pod` returns.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from kaito_core.api.messages import fault
from kaito_core.api.workspace.adapters import Secrets
from kaito_core.api.workspace.document import Document
from kaito_core.api.workspace.formats import OPTIONAL_OBJECT_NAME, VOLUME_NAME
from kaito_core.api.workspace.freeform import FreeForm
from kaito_core.api.workspace.pod_parts import (
    MAX_LISTED,
    Affinity,
    Annotations,
    CaBundle,
    EnvVar,
    HostAlias,
    Labels,
    PodSecurity,
    Resources,
    Spread,
    Toleration,
    Volume,
    VolumeMount,
)

__all__ = ["LIST_KEYS", "UNITED_LISTS", "PodChange", "PodOptions", "merged"]


#: Arguments of the server that the operator sets.
RESERVED_ARGUMENTS = ("--config", "--model", "--adapters-dir", "--host", "--port", "--drain-seconds")
_CONTAINERS = ("runtime", "weights")


class PodOptions(Document):
    """What the pods of a preset take along: labels, tolerations, variables and whatever else a cluster asks of pods.

    A change of any of it replaces the pods.

    Attributes:
        labels: Further labels of the pods.
        annotations: Annotations of the pods.
        tolerations: Taints that the pods tolerate, besides those of GPU nodes.
        env: Variables of every container that fetches or serves, such as HTTPS_PROXY or HF_ENDPOINT.
        env_from: ConfigMaps and Secrets whose entries become variables of the containers of the runtime's image, as in
            a container's envFrom.
        runtime_class_name: RuntimeClass of the pods.
        priority_class_name: PriorityClass of the pods.
        scheduler_name: Scheduler of the pods, if it is not the default one.
        service_account_name: ServiceAccount of the pods. Its token is not mounted.
        resources: What the server's container asks for and may use, besides its GPUs.
        affinity: Affinity of the pods. A node must meet this and what the Workspace asks for.
        topology_spread_constraints: How replicas are spread; without a labelSelector those of this Workspace.
        volumes: Further volumes of the pods, each a name and one kind of volume.
        volume_mounts: Where the containers of the runtime's image find these volumes.
        host_aliases: Entries of the pods' /etc/hosts.
        dns_config: DNS parameters, as in a pod's dnsConfig.
        dns_policy: DNS policy, as in a pod's dnsPolicy.
        image_pull_secrets: Names of Secrets to pull images with, besides those of the preset and the adapters.
        security_context: User, groups and kernel parameters of the pods.
        ca_bundle: Certificates of a private authority, for every container that fetches or serves.
    """

    labels: Labels = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = Field(default=(), max_length=MAX_LISTED)
    env: tuple[EnvVar, ...] = Field(default=(), max_length=MAX_LISTED)
    env_from: tuple[FreeForm, ...] = Field(default=(), max_length=MAX_LISTED)
    runtime_class_name: Annotated[str, OPTIONAL_OBJECT_NAME] = ""
    priority_class_name: Annotated[str, OPTIONAL_OBJECT_NAME] = ""
    scheduler_name: Annotated[str, OPTIONAL_OBJECT_NAME] = ""
    service_account_name: Annotated[str, OPTIONAL_OBJECT_NAME] = ""
    resources: Resources | None = None
    affinity: Affinity = Field(default_factory=dict)
    topology_spread_constraints: tuple[Spread, ...] = Field(default=(), max_length=MAX_LISTED)
    volumes: tuple[Volume, ...] = Field(default=(), max_length=MAX_LISTED)
    volume_mounts: tuple[VolumeMount, ...] = Field(default=(), max_length=MAX_LISTED)
    host_aliases: tuple[HostAlias, ...] = Field(default=(), max_length=MAX_LISTED)
    dns_config: FreeForm = Field(default_factory=dict)
    dns_policy: Annotated[str, Field(pattern="^[A-Za-z]*$", max_length=32)] = ""
    image_pull_secrets: Secrets = ()
    security_context: PodSecurity | None = None
    ca_bundle: CaBundle | None = None

    def given(self) -> dict[str, Any]:
        """Returns the fields that say anything, as Kubernetes writes them."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def _argument(text: str) -> str:
    name = text.partition("=")[0]
    if name in RESERVED_ARGUMENTS:
        raise fault(f"must not have '{name}', which the operator sets")
    return text


def _sidecar(container: Mapping[str, Any]) -> Mapping[str, Any]:
    for field in ("name", "image"):
        if not isinstance(container.get(field), str):
            raise fault(f"must have a {field}")
    name = VOLUME_NAME.check(container["name"])
    if name in _CONTAINERS or name.startswith("adapter-"):
        raise fault(f"must not be called '{name}', as a container of the operator's is")
    return container


class PodChange(PodOptions):
    """What a plugin adds to the pods of a preset: all of `inference.pod`, arguments of the server, and sidecars.

    Attributes:
        arguments: Further arguments of `kaito-runtime serve`.
        sidecars: Further containers, as in a pod's containers; the operator adds what its level of security asks for
            where they do not say it.
    """

    # Plugins write the names of Python.
    model_config = ConfigDict(populate_by_name=True)

    arguments: tuple[Annotated[str, AfterValidator(_argument)], ...] = Field(default=(), max_length=MAX_LISTED)
    sidecars: tuple[Annotated[FreeForm, AfterValidator(_sidecar)], ...] = Field(default=(), max_length=MAX_LISTED)


#: Lists of which an entry replaces the one with the same value of a field.
LIST_KEYS: Mapping[str, str] = {"env": "name", "volumes": "name", "volumeMounts": "mountPath", "hostAliases": "ip"}
#: Lists of which all entries count.
UNITED_LISTS = ("tolerations", "envFrom", "imagePullSecrets", "arguments", "sidecars")


def merged(layers: Iterable[PodOptions]) -> dict[str, Any]:
    """Returns several options as one, as Kubernetes writes them; of two that say the same thing the later one counts.

    Mappings and lists of named things are merged by key, lists without names are joined, anything else is replaced.
    """
    whole: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.given().items():
            whole[name] = _joined(name, whole[name], value) if name in whole else value
    return whole


def _joined(name: str, before: Any, after: Any) -> Any:
    if name in LIST_KEYS:
        entries = {entry[LIST_KEYS[name]]: entry for entry in (*before, *after)}
        return list(entries.values())
    if name in UNITED_LISTS:
        return [*before, *(entry for entry in after if entry not in before)]
    if name in ("labels", "annotations"):
        return {**before, **after}
    if name == "resources":
        return {kind: {**before.get(kind, {}), **after.get(kind, {})} for kind in (*before, *after)}
    if name == "securityContext":
        return {**before, **after}
    return after
