"""What differs between clouds under Karpenter, as data."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kaito_core.api.nodes import GpuSku
from kaito_core.errors import ConfigError

__all__ = ["KarpenterCloud", "NodeClass"]

#: Options of a plugin (KAITO_PLUGIN_<PLUGIN>__NODE_CLASS and so on), by the field that each sets.
_OPTIONS = {"node_class": "name", "node_class_kind": "kind", "node_class_group": "group"}


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
            in `skus` is asked for all the same, and sized by the preset's own numbers.
        node_class: What claims refer to, unless the settings name another.
        label_domains: Label domains that the cloud's Karpenter writes itself, besides Kubernetes' and Karpenter's own.
    """

    name: str
    title: str
    skus: Sequence[GpuSku]
    type_pattern: re.Pattern[str]
    node_class: NodeClass
    label_domains: tuple[str, ...] = ()

    def find_sku(self, name: str) -> GpuSku | None:
        """Returns a machine type by its name, whatever the case of its letters; None for one not in the table."""
        return next((sku for sku in self.skus if sku.name.casefold() == name.casefold()), None)

    def configured(self, options: Mapping[str, str]) -> "KarpenterCloud":
        """Returns the cloud with the node class that a plugin's options name.

        Args:
            options: `settings.plugins[name]`: "node_class", "node_class_kind", "node_class_group", each optional.

        Raises:
            ConfigError: There is another option.
        """
        if unknown := sorted(set(options) - set(_OPTIONS)):
            raise ConfigError(f"{self.name} has no option {', '.join(unknown)}; known: {', '.join(sorted(_OPTIONS))}")
        return replace(
            self, node_class=replace(self.node_class, **{_OPTIONS[option]: value for option, value in options.items()})
        )
