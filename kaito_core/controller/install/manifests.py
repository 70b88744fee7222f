"""Everything that runs the operator on a cluster, as manifests. Pure functions; nothing is applied here."""

from collections.abc import Mapping, Sequence
from typing import Any

from kaito_core.api import KubeObject, ResourceType
from kaito_core.api.workload import MANAGED_BY_LABEL
from kaito_core.api.workspace.crd import workspace_crd
from kaito_core.controller.install.environment import POD_ID, Environment, operator_environment
from kaito_core.controller.install.rbac import (
    Rule,
    cluster_rules,
    lease_rules,
    namespace_rules,
    rules,
    webhook_rules,
    webhook_secret_rules,
)
from kaito_core.controller.webhook.objects import webhook_configuration, webhook_service
from kaito_core.reconcile.desired import relocate_image

__all__ = ["INSTALLED_BY", "NAME", "OPERATOR_IMAGE", "cluster_name", "installation"]

OPERATOR_IMAGE = "ghcr.io/kaito-project/kaito-operator:0.1.0"
NAME = "kaito-operator"
#: Value of the label `app.kubernetes.io/managed-by`.
INSTALLED_BY = "kaito-install"
_LABELS = {"app.kubernetes.io/name": NAME, MANAGED_BY_LABEL: INSTALLED_BY}
_SELECTOR = {"app.kubernetes.io/name": NAME}
_RBAC_GROUP = "rbac.authorization.k8s.io"
#: Above 0, which pods have by default: an operator must not wait for the models whose nodes it is to find.
_PRIORITY = 1_000_000


def cluster_name(namespace: str) -> str:
    """Returns the name of what the operator of a namespace has elsewhere: several operators share a cluster."""
    return f"{NAME}-{namespace}"


def installation(
    *,
    namespace: str,
    watches: Sequence[ResourceType],
    env: Mapping[str, str],
    image: str = "",
    webhook: bool = False,
) -> list[KubeObject]:
    """Returns the manifests in the order in which they can be applied.

    Args:
        namespace: Namespace of the operator itself.
        watches: What the installed node providers make and watch, for RBAC.
        env: Variables of the operator, its settings among them.
        image: The operator's image; "" for ours, from the registry of the setting `image_registry`.
        webhook: Whether the API server asks the operator before it stores a Workspace.

    Raises:
        ConfigError: The namespace or a setting cannot be used.
    """
    environment = operator_environment(namespace, env, webhook=webhook)
    settings = environment.settings
    webhook = bool(settings.webhook_port)
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace}
    everywhere = cluster_rules(watches) if settings.namespaces else rules(watches)
    own = (*(lease_rules() if settings.leader_election else ()), *(webhook_secret_rules() if webhook else ()))
    name = cluster_name(namespace)
    return [
        workspace_crd(),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": dict(_LABELS)}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(namespace)},
        *_rights("", name, (*everywhere, *(webhook_rules(namespace) if webhook else ())), subject),
        *(_rights(namespace, NAME, own, subject) if own else ()),
        _priority_class(name),
        *([_metrics_service(namespace, settings.health_port)] if settings.health_port else []),
        *([_disruption_budget(namespace)] if settings.leader_election else []),
        _deployment(namespace, image or relocate_image(OPERATOR_IMAGE, settings.image_registry), environment),
        # After everything else: one of these namespaces may not exist yet.
        *(
            manifest
            for served in settings.namespaces
            for manifest in _rights(served, name, namespace_rules(watches), subject)
        ),
        # Last: while nothing serves the webhook, every write of a Workspace would wait for its timeout.
        *(
            [
                webhook_service(namespace, dict(_LABELS), dict(_SELECTOR)),
                webhook_configuration(namespace, dict(_LABELS), settings.namespaces),
            ]
            if webhook
            else []
        ),
    ]


def _metadata(namespace: str = "", name: str = NAME) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": dict(_LABELS)}
    return metadata | ({"namespace": namespace} if namespace else {})


def _rights(namespace: str, name: str, granted: Sequence[Rule], subject: KubeObject) -> list[KubeObject]:
    """Returns a role and its binding to the operator: in a namespace, or with "" a ClusterRole."""
    prefix = "" if namespace else "Cluster"
    api_version = f"{_RBAC_GROUP}/v1"
    reference = {"apiGroup": _RBAC_GROUP, "kind": f"{prefix}Role", "name": name}
    return [
        {
            "apiVersion": api_version,
            "kind": f"{prefix}Role",
            "metadata": _metadata(namespace, name),
            "rules": [rule.to_dict() for rule in granted],
        },
        {
            "apiVersion": api_version,
            "kind": f"{prefix}RoleBinding",
            "metadata": _metadata(namespace, name),
            "roleRef": reference,
            "subjects": [subject],
        },
    ]


def _priority_class(name: str) -> KubeObject:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": _metadata(name=name),
        "value": _PRIORITY,
        "description": "Pods of the KAITO operator.",
    }


def _disruption_budget(namespace: str) -> KubeObject:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(namespace),
        # Not minAvailable: during a rollout a drain would have to wait for a replica that cannot start.
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(_SELECTOR)}},
    }


def _metrics_service(namespace: str, port: int) -> KubeObject:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(namespace),
        "spec": {
            "publishNotReadyAddresses": True,  # metrics matter most while the operator is not ready
            "selector": dict(_SELECTOR),
            "ports": [{"name": "metrics", "port": port, "targetPort": "health", "protocol": "TCP"}],
        },
    }


def _deployment(namespace: str, image: str, environment: Environment) -> KubeObject:
    # Two operators that act at the same time undo each other's work, so without an election there is never a second.
    elects = environment.settings.leader_election
    surge = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(namespace),
        "spec": {
            "replicas": 2 if elects else 1,  # one leads, the other stands by
            "strategy": surge if elects else {"type": "Recreate"},
            "selector": {"matchLabels": dict(_SELECTOR)},
            "template": {"metadata": {"labels": dict(_LABELS)}, "spec": _pod(namespace, image, environment)},
        },
    }


def _pod(namespace: str, image: str, environment: Environment) -> KubeObject:
    settings = environment.settings
    container: KubeObject = {
        "name": "operator",
        "image": image,
        "args": ["operator"],
        "env": [
            *({"name": name, "value": value} for name, value in sorted(environment.variables.items())),
            {"name": POD_ID, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in (("health", settings.health_port), ("webhook", settings.webhook_port))
            if port
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if settings.health_port:
        container |= {"livenessProbe": _probe("/livez", 20), "readinessProbe": _probe("/readyz", 5)}
    pod: KubeObject = {
        "serviceAccountName": NAME,
        "priorityClassName": cluster_name(namespace),
        # Both replicas on one node would end together; where there is only one node, they may.
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": dict(_SELECTOR)},
            }
        ],
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    if settings.webhook_port:
        # Python reads certificates from files only, and the root file system is read-only.
        container["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]
        pod["volumes"] = [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]
    return pod


def _probe(path: str, period_seconds: int) -> KubeObject:
    return {"httpGet": {"path": path, "port": "health"}, "periodSeconds": period_seconds, "timeoutSeconds": 5}
