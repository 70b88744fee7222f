"""Everything that a cluster needs to run the operator, as manifests. Data and pure functions; nothing is applied."""

from collections.abc import Sequence
from typing import Any

from kaito_core.api import KubeObject, ResourceType
from kaito_core.api.workload import MANAGED_BY_LABEL
from kaito_core.api.workspace.crd import workspace_crd
from kaito_core.controller.install.rbac import (
    cluster_rules,
    lease_rules,
    namespace_rules,
    rules,
    webhook_rules,
    webhook_secret_rules,
)
from kaito_core.controller.webhook.objects import webhook_configuration, webhook_service

__all__ = ["OPERATOR_IMAGE", "installation"]

OPERATOR_IMAGE = "ghcr.io/kaito-project/kaito-operator:0.1.0"
NAME = "kaito-operator"
_LABELS = {"app.kubernetes.io/name": NAME, MANAGED_BY_LABEL: "kaito-install"}
_WEBHOOK_PORT = 9443
_SELECTOR = {"app.kubernetes.io/name": NAME}


def installation(
    *,
    namespace: str,
    image: str,
    health_port: int,
    watches: Sequence[ResourceType],
    env: dict[str, str],
    namespaces: Sequence[str] = (),
    webhook: bool = False,
) -> list[KubeObject]:
    """Returns the manifests in the order in which they can be applied.

    Args:
        namespace: Namespace of the operator itself.
        image: The operator's image.
        health_port: Port of /livez, /readyz and /metrics.
        watches: What the installed node providers make and watch, for RBAC.
        env: Settings of the operator, as environment variables.
        namespaces: Those whose Workspaces it serves, and in which alone it has rights; none: all.
        webhook: Whether the API server asks the operator before it takes a Workspace.
    """
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": namespace}
    pod = _pod(namespace, image, health_port, env)
    extra: list[KubeObject] = []
    if webhook:
        _add_webhook(pod, namespace)
        # The configuration comes last: before anything answers, the API server would wait for it in vain.
        extra = [
            webhook_service(namespace, dict(_LABELS), dict(_SELECTOR)),
            webhook_configuration(namespace, dict(_LABELS)),
        ]
    cluster_wide = cluster_rules(watches) if namespaces else rules(watches)
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME}
    return [
        workspace_crd(),
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": dict(_LABELS)}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(namespace)},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": _metadata(),
            "rules": [rule.to_dict() for rule in (*cluster_wide, *(webhook_rules() if webhook else ()))],
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
            "rules": [rule.to_dict() for rule in (*lease_rules(), *(webhook_secret_rules() if webhook else ()))],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": _metadata(namespace),
            "roleRef": {**role, "kind": "Role"},
            "subjects": [subject],
        },
        *(manifest for served in namespaces for manifest in _rights(served, watches, subject)),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(namespace),
            "spec": {
                "publishNotReadyAddresses": True,  # its metrics are wanted most when something is wrong
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
                "template": {"metadata": {"labels": dict(_LABELS)}, "spec": pod},
            },
        },
        *extra,
    ]


def _metadata(namespace: str = "") -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": NAME, "labels": dict(_LABELS)}
    return metadata | ({"namespace": namespace} if namespace else {})


def _rights(served: str, watches: Sequence[ResourceType], subject: KubeObject) -> tuple[KubeObject, KubeObject]:
    """Returns the role of the operator in a namespace whose Workspaces it serves, and its binding."""
    # Another name than that of the role in its own namespace, which may be the same.
    metadata = {**_metadata(served), "name": f"{NAME}-workspaces"}
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": metadata["name"]}
    return (
        {**kind, "kind": "Role", "rules": [rule.to_dict() for rule in namespace_rules(watches)]},
        {**kind, "kind": "RoleBinding", "roleRef": reference, "subjects": [subject]},
    )


def _add_webhook(pod: KubeObject, namespace: str) -> None:
    container = pod["containers"][0]
    container["env"] += [
        {"name": "KAITO_WEBHOOK_NAMESPACE", "value": namespace},
        {"name": "KAITO_WEBHOOK_PORT", "value": str(_WEBHOOK_PORT)},
    ]
    container["ports"].append({"name": "webhook", "containerPort": _WEBHOOK_PORT, "protocol": "TCP"})
    # Python reads certificates from files only, and the root file system is read-only.
    container["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]
    pod["volumes"] = [{"name": "tmp", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]


def _pod(namespace: str, image: str, health_port: int, env: dict[str, str]) -> KubeObject:
    def probe(path: str, period_seconds: int) -> KubeObject:
        return {"httpGet": {"path": path, "port": "health"}, "periodSeconds": period_seconds, "timeoutSeconds": 5}

    elects = {"KAITO_LEADER_ELECTION": "true", "KAITO_LEADER_ELECTION_NAMESPACE": namespace}
    variables = {"KAITO_HEALTH_PORT": str(health_port), "KAITO_LOG_FORMAT": "json", **elects, **env}
    return {
        "serviceAccountName": NAME,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "operator",
                "image": image,
                "args": ["operator"],
                "env": [
                    *({"name": name, "value": value} for name, value in sorted(variables.items())),
                    {"name": "POD_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                ],
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
