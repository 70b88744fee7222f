"""The record that describes a cloud to this package."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kaito_core.api.nodes import GpuSku
from kaito_core.errors import ConfigError, known_names
from kaito_karpenter.choices import ARCHITECTURE, CAPACITY_TYPE, chosen, option_variable

__all__ = ["OPTIONS", "KarpenterCloud", "NodeClass"]

#: The options of a plugin (KAITO_PLUGIN_<PLUGIN>__NODE_CLASS and so on), with their meanings.
OPTIONS: Mapping[str, str] = {
    "node_class": "Name of the node class of NodeClaims.",
    "node_class_kind": "Its kind.",
    "node_class_group": "Its API group.",
    "expire_after": "When Karpenter replaces a machine, whatever runs on it: Never (the default), or a duration such "
    "as 720h.",
    "capacity_type": "on-demand (the default), spot or reserved, or several separated by commas. Annotation "
    "kaito.sh/capacity-type.",
    "zones": "Zones of the machines, separated by commas; any by default. Annotation kaito.sh/zones.",
    "architectures": "Processors that the images are built for: amd64 (the default), arm64, or both separated by a "
    "comma. Machine types with other processors are refused. Annotation kaito.sh/architectures.",
}
_NODE_CLASS_OPTIONS = {"node_class": "name", "node_class_kind": "kind", "node_class_group": "group"}
_DURATION = re.compile(r"Never|(?=.*[1-9])([0-9]+[smh])+", re.ASCII)


@dataclass(frozen=True, slots=True)
class NodeClass:
    """A node class, which describes machines to Karpenter. The administrators of the cluster create it.

    Attributes:
        name: Its name.
        kind: Its kind, such as "EC2NodeClass".
        group: Its API group, such as "karpenter.k8s.aws".
    """

    name: str
    kind: str
    group: str

    @property
    def storage_resource(self) -> str:
        """The resource name of the disk: "ephemeral-storage" for Karpenter, "storage" for the gpu-provisioner."""
        return "storage" if self.group == "kaito.sh" else "ephemeral-storage"


@dataclass(frozen=True, slots=True)
class KarpenterCloud:
    """A cloud that has a Karpenter provider.

    Attributes:
        name: Name of the node provider, such as "gpu_azure".
        title: The cloud's name in messages, such as "Azure".
        skus: The table of machine types.
        type_pattern: Matches the cloud's machine types. A type that is not in `skus` can be requested too; its size is
            then read from its node.
        node_class: The node class of NodeClaims, unless the options name another.
        label_domains: Domains of labels that the cloud's Karpenter provider sets itself.
        cpu_pattern: Matches machine types without GPUs; None if names do not show it.
        arm_pattern: Matches machine types with arm64 processors; None if there are none.
        gpu_memory_label: Label that the cloud's Karpenter provider sets on nodes, with the MiB of one GPU; "" for none.
        expire_after: When Karpenter replaces a machine, whatever runs on it, in Karpenter's notation of durations.
        choices: Allowed values of labels, unless a Workspace's annotations choose others. `kubernetes.io/arch` has the
            processors that images are built for. The capacity type is required: without one, Karpenter may launch a
            spot machine for a claim that has no NodePool.
    """

    name: str
    title: str
    skus: Sequence[GpuSku]
    type_pattern: re.Pattern[str]
    node_class: NodeClass
    label_domains: tuple[str, ...] = ()
    cpu_pattern: re.Pattern[str] | None = None
    arm_pattern: re.Pattern[str] | None = None
    gpu_memory_label: str = ""
    expire_after: str = "Never"
    choices: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {CAPACITY_TYPE: ("on-demand",), ARCHITECTURE: ("amd64",)}
    )

    def find_sku(self, name: str) -> GpuSku | None:
        """Returns a machine type of the table by its name, ignoring case; None if it has none of that name."""
        return next((sku for sku in self.skus if sku.name.casefold() == name.casefold()), None)

    def nearest(self, instance_type: str) -> str:
        """Returns the name in the table that is most similar to another name, "" if none is."""
        close = difflib.get_close_matches(instance_type, [sku.name for sku in self.skus], n=1)
        return close[0] if close else ""

    def makes(self, instance_type: str) -> bool:
        """Returns whether a machine type is in the table, or named like those of the cloud."""
        return self.find_sku(instance_type) is not None or _matches(self.type_pattern, instance_type)

    def lacks_gpus(self, instance_type: str) -> bool:
        """Returns whether the name of a machine type shows that it has no GPU."""
        return self.find_sku(instance_type) is None and _matches(self.cpu_pattern, instance_type)

    def architecture(self, instance_type: str) -> str:
        """Returns the processors of a machine type by its name: "amd64" or "arm64"."""
        return "arm64" if _matches(self.arm_pattern, instance_type) else "amd64"

    def configured(self, options: Mapping[str, str]) -> "KarpenterCloud":
        """Returns the cloud with the options of a plugin.

        Args:
            options: `settings.plugins[name]`, with any of `OPTIONS`.

        Raises:
            ConfigError: An option is unknown, or its value cannot be used.
        """
        if unknown := sorted(set(options) - set(OPTIONS)):
            raise ConfigError(f"{self.name}: unknown option '{unknown[0]}'; {known_names(OPTIONS, unknown[0])}")
        expire_after = options.get("expire_after", self.expire_after)
        if _DURATION.fullmatch(expire_after) is None:
            variable = option_variable(self.name, "expire_after")
            raise ConfigError(f"{variable} must be Never or a duration such as 720h or 1h30m, got '{expire_after}'")
        named = {part: options[option] for option, part in _NODE_CLASS_OPTIONS.items() if option in options}
        return replace(
            self,
            node_class=replace(self.node_class, **named),
            expire_after=expire_after,
            choices={**self.choices, **chosen(self.name, options)},
        )


def _matches(pattern: re.Pattern[str] | None, instance_type: str) -> bool:
    return pattern is not None and pattern.fullmatch(instance_type) is not None
