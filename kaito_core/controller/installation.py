"""Everything that a cluster needs to run the operator, as manifests. Data and pure functions; nothing is applied."""

from collections.abc import Iterable
from typing import Any

from kaito_core.api import KubeObject, ResourceType
from kaito_core.api.crd import workspace_crd
from kaito_core.api.workload import MANAGED_BY_LABEL
from kaito_core.controller.rbac import lease_rules, rules

__all__ = ["OPERATOR_IMAGE", "installation"]

OPERATOR_IMAGE = "ghcr.io/kaito-project/kaito-operator:0.1.0"
NAME = "kaito-operator"
_LABELS = {"app.kubernetes.io/name": NAME, MANAGED_BY_LABEL: "kaito-install"}
_SELECTOR = {"app.kubernetes.io/name": NAME}


def installation(
    *, namespace: str, image: str, health_port: int, watches: Iterable[ResourceType], env: dict[str, str]
) -> list[KubeObject]:
    """Returns the manifests in the order in which they can be applied.

    Args:
        namespace: Namespace of the operator itself; it serves the Workspaces of all.
        image: The operator's image.
        health_port: Port of /livez, /readyz and /metrics.
        watches: What the installed node providers make and watch, for RBAC.
        env: Settings of the operator, as environment variables.
    """
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME}
    return [
        workspace_crd(),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": dict(_LABELS)}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(namespace)},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": _metadata(),
            "rules": [rule.to_dict() for rule in rules(watches)],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": _metadata(),
            "roleRef": role,
            "subjects": [subject],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": _metadata(namespace),
            "rules": [rule.to_dict() for rule in lease_rules()],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": _metadata(namespace),
            "roleRef": {**role, "kind": "Role"},
            "subjects": [subject],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(namespace),
            "spec": {
                "selector": dict(_SELECTOR),
                "ports": [{"name": "metrics", "port": health_port, "targetPort": "health", "protocol": "TCP"}],
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": _metadata(namespace),
            "spec": {
                "replicas": 2,  # one leads, one stands by
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "selector": {"matchLabels": dict(_SELECTOR)},
                "template": {"metadata": {"labels": dict(_LABELS)}, "spec": _pod(namespace, image, health_port, env)},
            },
        },
    ]


def _metadata(namespace: str = "") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": NAME, "labels": dict(_LABELS)}
    return metadata | ({"namespace": namespace} if namespace else {})


def _pod(namespace: str, image: str, health_port: int, env: dict[str, str]) -> KubeObject:
    def probe(path: str, period_seconds: int) -> KubeObject:
        return {"httpGet": {"path": path, "port": "health"}, "periodSeconds": period_seconds, "timeoutSeconds": 5}

    elects = {"KAITO_LEADER_ELECTION": "true", "KAITO_LEADER_ELECTION_NAMESPACE": namespace}
    variables = {"KAITO_HEALTH_PORT": str(health_port), **elects, **env}
    return {
        "serviceAccountName": NAME,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "operator",
                "image": image,
                "args": ["operator"],
                "env": [{"name": name, "value": value} for name, value in sorted(variables.items())],
                "ports": [{"name": "health", "containerPort": health_port, "protocol": "TCP"}],
                "livenessProbe": probe("/livez", 20),
                "readinessProbe": probe("/readyz", 5),
                "resources": {"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"memory": "512Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }
        ],
    }
