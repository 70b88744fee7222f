"""The webhook's objects on the cluster: names, Service and webhook configuration. Data and pure functions."""

from collections.abc import Sequence

from kaito_core.api import KubeObject, ResourceType
from kaito_core.api.workspace.model import GROUP, VERSIONS, WORKSPACES

__all__ = [
    "PATH",
    "SECRETS",
    "WEBHOOKS",
    "WEBHOOK_NAME",
    "configuration_name",
    "service_hosts",
    "webhook_configuration",
    "webhook_service",
]

#: Name of the Service and of the Secret.
WEBHOOK_NAME = "kaito-webhook"
PATH = "/validate"
SECRETS = ResourceType("", "v1", "secrets", "Secret")
WEBHOOKS = ResourceType(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)


def configuration_name(namespace: str) -> str:
    """Returns the name of the configuration, which belongs to the cluster, for an operator in that namespace."""
    return f"{WEBHOOK_NAME}-{namespace}"


def service_hosts(namespace: str) -> tuple[str, ...]:
    """Returns the DNS names of the Service; the API server uses the first."""
    name = f"{WEBHOOK_NAME}.{namespace}.svc"
    return (name, f"{name}.cluster.local", f"{WEBHOOK_NAME}.{namespace}")


def webhook_service(namespace: str, labels: dict[str, str], selector: dict[str, str]) -> KubeObject:
    """Returns the Service that the API server calls."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": WEBHOOK_NAME, "namespace": namespace, "labels": labels},
        "spec": {
            "selector": selector,
            "ports": [{"name": "https", "port": 443, "targetPort": "webhook", "protocol": "TCP"}],
        },
    }


def webhook_configuration(namespace: str, labels: dict[str, str], served: Sequence[str] = ()) -> KubeObject:
    """Returns the webhook configuration, to which the operator adds its authority.

    While no operator answers, Workspaces are stored unchecked; the operator checks them once it is back.

    Args:
        namespace: The operator's namespace.
        labels: Of the configuration.
        served: The namespaces whose Workspaces the operator serves; none stands for all.
    """
    within = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(served)}
    return {
        "apiVersion": WEBHOOKS.api_version,
        "kind": WEBHOOKS.kind,
        "metadata": {"name": configuration_name(namespace), "labels": labels},
        "webhooks": [
            {
                "name": f"{WORKSPACES.plural}.{GROUP}",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"service": {"name": WEBHOOK_NAME, "namespace": namespace, "path": PATH, "port": 443}},
                "rules": [
                    {
                        "apiGroups": [GROUP],
                        "apiVersions": list(VERSIONS),
                        "operations": ["CREATE", "UPDATE"],
                        "resources": [WORKSPACES.plural],
                        "scope": "Namespaced",
                    }
                ],
                **({"namespaceSelector": {"matchExpressions": [within]}} if served else {}),
                "failurePolicy": "Ignore",
                "matchPolicy": "Equivalent",
                "sideEffects": "None",
                "timeoutSeconds": 5,
            }
        ],
    }
