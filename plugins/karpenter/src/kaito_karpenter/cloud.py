"""What differs between clouds under Karpenter, as data."""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from kaito_core.api.nodes import GpuSku
from kaito_core.errors import ConfigError
from kaito_karpenter.choices import ARCHITECTURE, CAPACITY_TYPE, chosen, option_variable

__all__ = ["OPTIONS", "KarpenterCloud", "NodeClass"]

#: What the options of a plugin mean (KAITO_PLUGIN_<PLUGIN>__NODE_CLASS and so on).
OPTIONS: Mapping[str, str] = {
    "node_class": "Name of the node class that claims refer to.",
    "node_class_kind": "Its kind.",
    "node_class_group": "Its API group.",
    "expire_after": "When Karpenter replaces a machine whatever runs on it: Never (the default), or a duration such as "
    "720h.",
    "capacity_type": "on-demand (the default), spot or reserved, or several with commas between. Annotation "
    "kaito.sh/capacity-type.",
    "zones": "Zones that machines may be in, with commas between; empty by default: any. Annotation kaito.sh/zones.",
    "architectures": "Processors that the images are built for: amd64 (the default), arm64, or both with a comma "
    "between. A machine type with others is refused. Annotation kaito.sh/architectures.",
}
_NODE_CLASS_OPTIONS = {"node_class": "name", "node_class_kind": "kind", "node_class_group": "group"}
_DURATION = re.compile(r"Never|(?=.*[1-9])([0-9]+[smh])+", re.ASCII)


@dataclass(frozen=True, slots=True)
class NodeClass:
    """The node class that claims refer to; somebody who runs Karpenter has made it.

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
        """What a claim calls the disk: Karpenter matches ephemeral storage, the gpu-provisioner reads "storage"."""
        return "storage" if self.group == "kaito.sh" else "ephemeral-storage"


@dataclass(frozen=True, slots=True)
class KarpenterCloud:
    """One cloud under Karpenter.

    Attributes:
        name: Name of the node provider, which is what a Workspace's annotation calls it: "gpu_azure".
        title: The cloud's name in messages: "Azure".
        skus: The machine types that are known.
        type_pattern: What the cloud's machine types look like. Clouds have more of them than any table: one that is not
            in `skus` is asked for all the same, and sized by what its node reports.
        node_class: What claims refer to, unless the settings name another.
        label_domains: Label domains that the cloud's Karpenter writes itself, besides Kubernetes' and Karpenter's own.
        cpu_pattern: What machine types without GPUs look like; None where that cannot be told.
        arm_pattern: What machine types with arm64 processors look like; None where there are none.
        gpu_memory_label: Node label of the cloud's Karpenter with the MiB of one GPU, "" where there is none.
        expire_after: When Karpenter replaces a machine whatever runs on it, as it writes durations.
        choices: What is required of every machine, by label, unless a Workspace's annotations choose otherwise;
            `kubernetes.io/arch` is what images are built for. The capacity type has to be there: without one Karpenter
            takes a spot machine for a claim that no NodePool made.
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
        """Returns a machine type by its name, whatever the case of its letters; None for one not in the table."""
        return next((sku for sku in self.skus if sku.name.casefold() == name.casefold()), None)

    def nearest(self, instance_type: str) -> str:
        """Returns the name in the table that is most like another one, "" where none is."""
        close = difflib.get_close_matches(instance_type, [sku.name for sku in self.skus], n=1)
        return close[0] if close else ""

    def makes(self, instance_type: str) -> bool:
        """Returns whether a machine type is in the table, or named like those of the cloud."""
        return self.find_sku(instance_type) is not None or _matches(self.type_pattern, instance_type)

    def lacks_gpus(self, instance_type: str) -> bool:
        """Returns whether a machine type is known to have no GPU; its name says it."""
        return self.find_sku(instance_type) is None and _matches(self.cpu_pattern, instance_type)

    def architecture(self, instance_type: str) -> str:
        """Returns what processors a machine type has, "amd64" or "arm64"; its name says it."""
        return "arm64" if _matches(self.arm_pattern, instance_type) else "amd64"

    def configured(self, options: Mapping[str, str]) -> "KarpenterCloud":
        """Returns the cloud as a plugin's options have it.

        Args:
            options: `settings.plugins[name]`; those of `OPTIONS`, each optional.

        Raises:
            ConfigError: There is another option, or a value cannot be used.
        """
        if unknown := sorted(set(options) - set(OPTIONS)):
            raise ConfigError(f"{self.name} has no option {', '.join(unknown)}; known: {', '.join(sorted(OPTIONS))}")
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
