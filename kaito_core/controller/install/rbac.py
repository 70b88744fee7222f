"""The operator's rights, as RBAC rules: exactly the calls that it makes. Data and pure functions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kaito_core.api import NODES, ResourceType
from kaito_core.api.workspace.model import WORKSPACES
from kaito_core.controller.resources import CHILDREN, EVENTS, LEASE_NAME, LEASES
from kaito_core.controller.webhook.objects import SECRETS, WEBHOOK_NAME, WEBHOOKS, configuration_name
from kaito_core.reconcile.objects.manifests import CLAIMS, PODS
from kaito_core.reconcile.takeover import UPSTREAM_LEASE, UPSTREAM_WEBHOOK

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
#: Applying an object that does not exist yet takes the right to create as well as to patch.
_MANAGE = (*_READ, "create", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Rule:
    """The right to use verbs on resources of one API group; with `names` on the objects of these names only."""

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
        extra: The resource types of node providers, which create, change and delete their objects.
    """
    resources = tuple(extra)
    return (*namespace_rules(resources), *cluster_rules(resources))


def namespace_rules(extra: Iterable[ResourceType] = ()) -> tuple[Rule, ...]:
    """Returns the rules for each namespace whose Workspaces are served; `extra` as for `rules`."""
    return (
        Rule(WORKSPACES.group, (WORKSPACES.plural,), (*_READ, "patch")),
        Rule(WORKSPACES.group, (f"{WORKSPACES.plural}/status",), ("patch",)),
        # Some clusters refuse owner references that block the owner's deletion without this right.
        Rule(WORKSPACES.group, (f"{WORKSPACES.plural}/finalizers",), ("update",)),
        *_managed((*CHILDREN.values(), *(resource for resource in extra if resource.namespaced))),
        # The pods of a distributed model are replaced at once, which no Kubernetes controller does.
        Rule(PODS.group, (PODS.plural,), (*_READ, "patch", "delete")),
        Rule(PODS.group, (f"{PODS.plural}/ephemeralcontainers",), ("patch",)),
        Rule(EVENTS.group, (EVENTS.plural,), ("create",)),
        # Whether the claim of inference.weights can keep weights.
        Rule(CLAIMS.group, (CLAIMS.plural,), ("get",)),
    )


def cluster_rules(extra: Iterable[ResourceType] = ()) -> tuple[Rule, ...]:
    """Returns the rules for objects without a namespace; `extra` as for `rules`."""
    return (
        *_managed(resource for resource in extra if not resource.namespaced),
        Rule(NODES.group, (NODES.plural,), _READ),
        # Providers read the events of their objects, in which clouds say why they refused.
        Rule(EVENTS.group, (EVENTS.plural,), ("list",)),
        # kopf watches for resource types that are installed later, and for the namespaces it is to watch.
        Rule("apiextensions.k8s.io", ("customresourcedefinitions",), ("list", "watch")),
        Rule("", ("namespaces",), ("list", "watch")),
        # Where KAITO's own operator is there, this one stands by.
        Rule(WEBHOOKS.group, (WEBHOOKS.plural,), ("get",), (UPSTREAM_WEBHOOK,)),
        Rule(LEASES.group, (LEASES.plural,), ("list",), (UPSTREAM_LEASE,)),
    )


def _managed(resources: Iterable[ResourceType]) -> tuple[Rule, ...]:
    groups: dict[str, list[str]] = {}
    for resource in resources:
        groups.setdefault(resource.group, []).append(resource.plural)
    return tuple(Rule(group, tuple(plurals), _MANAGE) for group, plurals in sorted(groups.items()))


def lease_rules() -> tuple[Rule, ...]:
    """Returns the rules for the Lease of the leader election, in the operator's own namespace."""
    return (
        # The right to create cannot be limited to a name.
        Rule(LEASES.group, (LEASES.plural,), ("create",)),
        Rule(LEASES.group, (LEASES.plural,), ("get", "update"), (LEASE_NAME,)),
    )


def webhook_rules(namespace: str) -> tuple[Rule, ...]:
    """Returns the rules for the webhook configuration, into which the operator of a namespace writes its authority."""
    return (Rule(WEBHOOKS.group, (WEBHOOKS.plural,), ("get", "update"), (configuration_name(namespace),)),)


def webhook_secret_rules() -> tuple[Rule, ...]:
    """Returns the rules for the Secret with the webhook's certificate, in the operator's own namespace."""
    return (
        Rule(SECRETS.group, (SECRETS.plural,), ("create",)),
        Rule(SECRETS.group, (SECRETS.plural,), ("get", "update"), (WEBHOOK_NAME,)),
    )
