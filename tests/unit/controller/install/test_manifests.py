"""The manifests fit the settings that they give the operator."""

from typing import Any

from kaito_core.controller.install.manifests import OPERATOR_IMAGE, installation
from kaito_core.settings import Settings


def manifests(webhook: bool = False, **env: str) -> dict[tuple[str, str], Any]:
    """The manifests of an installation, by kind and name."""
    made = installation(namespace="serving", watches=(), env=env, webhook=webhook)
    return {(item["kind"], item["metadata"]["name"]): item for item in made}


def container(made: dict[tuple[str, str], Any]) -> Any:
    return made["Deployment", "kaito-operator"]["spec"]["template"]["spec"]["containers"][0]


def settings(made: dict[tuple[str, str], Any]) -> Settings:
    """What the installed operator reads."""
    return Settings.from_env({item["name"]: item["value"] for item in container(made)["env"] if "value" in item})


def test_probes_and_metrics_follow_the_health_port() -> None:
    made = manifests(KAITO_HEALTH_PORT="9999")
    assert settings(made).health_port == 9999
    assert container(made)["ports"] == [{"name": "health", "containerPort": 9999, "protocol": "TCP"}]
    for probe in ("livenessProbe", "readinessProbe"):
        assert container(made)[probe]["httpGet"]["port"] == "health"
    (port,) = made["Service", "kaito-operator"]["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (9999, "health")


def test_without_a_health_port_nothing_is_probed() -> None:
    made = manifests(KAITO_HEALTH_PORT="0")
    assert not {"livenessProbe", "readinessProbe"} & set(container(made))
    assert container(made)["ports"] == []
    assert ("Service", "kaito-operator") not in made


def test_without_a_leader_election_there_is_never_a_second_operator() -> None:
    elected = manifests()["Deployment", "kaito-operator"]["spec"]
    assert (elected["replicas"], elected["strategy"]["type"]) == (2, "RollingUpdate")
    made = manifests(KAITO_LEADER_ELECTION="false")
    alone = made["Deployment", "kaito-operator"]["spec"]
    assert (alone["replicas"], alone["strategy"]) == (1, {"type": "Recreate"})
    assert settings(made).leader_election is False
    assert ("Role", "kaito-operator") not in made, "no Lease is written"


def test_a_port_of_the_webhook_brings_the_webhook() -> None:
    made = manifests(KAITO_WEBHOOK_PORT="8443")
    assert ("ValidatingWebhookConfiguration", "kaito-webhook-serving") in made
    assert {"name": "webhook", "containerPort": 8443, "protocol": "TCP"} in container(made)["ports"]
    assert made.keys() == manifests(webhook=True).keys()


def test_the_registry_for_all_images_is_the_operators_too() -> None:
    name = OPERATOR_IMAGE.rsplit("/", 1)[1]
    assert (
        container(manifests(KAITO_IMAGE_REGISTRY="registry.example/kaito"))["image"] == f"registry.example/kaito/{name}"
    )
    assert container(manifests())["image"] == OPERATOR_IMAGE
