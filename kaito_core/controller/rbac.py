"""What the operator may do, as RBAC rules: as narrow as what the code calls. Data; the chart is generated from it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kaito_core.api import NODES, ResourceType
from kaito_core.api.workspace import WORKSPACES
from kaito_core.controller.events import EVENTS
from kaito_core.controller.execute import CHILDREN
from kaito_core.reconcile.manifests import PODS

__all__ = ["Rule", "rules"]

_READ = ("get", "list", "watch")
#: Applying what is not there yet needs leave to create as well as to patch.
_MANAGE = (*_READ, "create", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Rule:
    """Leave to do some verbs on some resources of one API group."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the rule as a ClusterRole writes it."""
        return {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}


def rules(extra: Iterable[ResourceType] = ()) -> tuple[Rule, ...]:
    """Returns the operator's rules.

    Args:
        extra: What node providers watch; they make, change and delete it.
    """
    groups: dict[str, list[str]] = {}
    for resource in (*CHILDREN.values(), *extra):
        groups.setdefault(resource.group, []).append(resource.plural)
    return (
        Rule(WORKSPACES.group, (WORKSPACES.plural,), (*_READ, "patch")),
        Rule(WORKSPACES.group, (f"{WORKSPACES.plural}/status",), ("patch",)),
        # Owner references that block the owner's deletion are refused without it where that is enforced.
        Rule(WORKSPACES.group, (f"{WORKSPACES.plural}/finalizers",), ("update",)),
        *(Rule(group, tuple(plurals), _MANAGE) for group, plurals in sorted(groups.items())),
        Rule(PODS.group, (PODS.plural,), (*_READ, "patch")),
        Rule(PODS.group, (f"{PODS.plural}/ephemeralcontainers",), ("patch",)),
        Rule(NODES.group, (NODES.plural,), _READ),
        # Providers read the events of what they made, which is where clouds say why they refused.
        Rule(EVENTS.group, (EVENTS.plural,), ("list", "create")),
        # kopf looks for types that are installed later, and for the namespaces that it is told to watch.
        Rule("apiextensions.k8s.io", ("customresourcedefinitions",), ("list", "watch")),
        Rule("", ("namespaces",), ("list", "watch")),
    )
