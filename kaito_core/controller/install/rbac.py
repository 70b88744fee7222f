"""What the operator may do, as RBAC rules: as narrow as what the code calls. Data; the chart is generated from it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kaito_core.api import NODES, ResourceType
from kaito_core.api.workspace.model import WORKSPACES
from kaito_core.controller.resources import CHILDREN, EVENTS, LEASE_NAME, LEASES
from kaito_core.controller.webhook.objects import SECRETS, WEBHOOK_NAME, WEBHOOKS
from kaito_core.reconcile.manifests import PODS

__all__ = [
    "Rule",
    "cluster_rules",
    "lease_rules",
    "namespace_rules",
    "rules",
    "webhook_rules",
    "webhook_secret_rules",
]

_READ = ("get", "list", "watch")
#: Applying what is not there yet needs leave to create as well as to patch.
_MANAGE = (*_READ, "create", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Rule:
    """Leave to do some verbs on some resources of one API group, or on those of certain names only."""

    group: str
    resources: tuple[str, ...]
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the rule as a role writes it."""
        rule = {"apiGroups": [self.group], "resources": list(self.resources), "verbs": list(self.verbs)}
        return rule | ({"resourceNames": list(self.names)} if self.names else {})


def rules(extra: Iterable[ResourceType] = ()) -> tuple[Rule, ...]:
    """Returns the rules of an operator that serves all namespaces.

    Args:
        extra: What node providers watch; they make, change and delete it.
    """
    resources = tuple(extra)
    return (*namespace_rules(resources), *cluster_rules(resources))


def namespace_rules(extra: Iterable[ResourceType] = ()) -> tuple[Rule, ...]:
    """Returns what the operator may do in each namespace whose Workspaces it serves; `extra` as for `rules`."""
    return (
        Rule(WORKSPACES.group, (WORKSPACES.plural,), (*_READ, "patch")),
        Rule(WORKSPACES.group, (f"{WORKSPACES.plural}/status",), ("patch",)),
        # Owner references that block the owner's deletion are refused without it where that is enforced.
        Rule(WORKSPACES.group, (f"{WORKSPACES.plural}/finalizers",), ("update",)),
        *_managed((*CHILDREN.values(), *(resource for resource in extra if resource.namespaced))),
        # The pods of a distributed model are replaced all at once, which no controller of Kubernetes does.
        Rule(PODS.group, (PODS.plural,), (*_READ, "patch", "delete")),
        Rule(PODS.group, (f"{PODS.plural}/ephemeralcontainers",), ("patch",)),
        Rule(EVENTS.group, (EVENTS.plural,), ("create",)),
    )


def cluster_rules(extra: Iterable[ResourceType] = ()) -> tuple[Rule, ...]:
    """Returns what the operator may do with what is in no namespace; `extra` as for `rules`."""
    return (
        *_managed(resource for resource in extra if not resource.namespaced),
        Rule(NODES.group, (NODES.plural,), _READ),
        # Providers read the events of what they made, which is where clouds say why they refused.
        Rule(EVENTS.group, (EVENTS.plural,), ("list",)),
        # kopf looks for types that are installed later, and for the namespaces that it is told to watch.
        Rule("apiextensions.k8s.io", ("customresourcedefinitions",), ("list", "watch")),
        Rule("", ("namespaces",), ("list", "watch")),
    )


def _managed(resources: Iterable[ResourceType]) -> tuple[Rule, ...]:
    groups: dict[str, list[str]] = {}
    for resource in resources:
        groups.setdefault(resource.group, []).append(resource.plural)
    return tuple(Rule(group, tuple(plurals), _MANAGE) for group, plurals in sorted(groups.items()))


def lease_rules() -> tuple[Rule, ...]:
    """Returns what the operator may do in its own namespace besides: hold the Lease by which one of several leads."""
    return (
        # Leave to create cannot be tied to a name.
        Rule(LEASES.group, (LEASES.plural,), ("create",)),
        Rule(LEASES.group, (LEASES.plural,), ("get", "update"), (LEASE_NAME,)),
    )


def webhook_rules() -> tuple[Rule, ...]:
    """Returns what the admission webhook needs on the cluster: to write its authority where the API server reads it."""
    return (Rule(WEBHOOKS.group, (WEBHOOKS.plural,), ("get", "update"), (WEBHOOK_NAME,)),)


def webhook_secret_rules() -> tuple[Rule, ...]:
    """Returns what it needs in the operator's own namespace: the Secret with its certificate, and no other."""
    return (
        Rule(SECRETS.group, (SECRETS.plural,), ("create",)),
        Rule(SECRETS.group, (SECRETS.plural,), ("get", "update"), (WEBHOOK_NAME,)),
    )
