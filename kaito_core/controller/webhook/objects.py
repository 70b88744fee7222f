"""The webhook's objects on the cluster: names, Service and webhook configuration. Data and pure functions."""

from kaito_core.api import KubeObject, ResourceType
from kaito_core.api.workspace.model import GROUP, VERSIONS, WORKSPACES

__all__ = [
    "PATH",
    "SECRETS",
    "WEBHOOKS",
    "WEBHOOK_NAME",
    "service_hosts",
    "webhook_configuration",
    "webhook_service",
]

#: Name of the Service, of the Secret and of the configuration.
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


def webhook_configuration(namespace: str, labels: dict[str, str]) -> KubeObject:
    """Returns the webhook configuration, to which the operator adds its authority.

    While no operator answers, Workspaces are stored unchecked; the operator checks them once it is back.
    """
    return {
        "apiVersion": WEBHOOKS.api_version,
        "kind": WEBHOOKS.kind,
        "metadata": {"name": WEBHOOK_NAME, "labels": labels},
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
                "failurePolicy": "Ignore",
                "matchPolicy": "Equivalent",
                "sideEffects": "None",
                "timeoutSeconds": 5,
            }
        ],
    }
