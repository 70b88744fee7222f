"""The environment of the installed operator: what it is refused, and what the operator reads from it."""

import pytest

from kaito_core.controller.install.environment import operator_environment
from kaito_core.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"KAITO_NAMESPACE": "team-a"},
            "--env: unknown setting 'KAITO_NAMESPACE'; did you mean KAITO_NAMESPACES[?]",
        ),
        ({"KAITO_RUNTIME_IMGE": "x"}, "did you mean KAITO_RUNTIME_IMAGE[?]"),
        ({"KAITO_PLUGIN_AZURE": "x"}, "KAITO_PLUGIN_AZURE names no option"),
        ({"KAITO_LEADER_ELECTION_NAMESPACE": "x"}, "which --namespace sets"),
        ({"KAITO_WEBHOOK_NAMESPACE": "x"}, "which --namespace sets"),
        ({"KAITO_HEALTH_PORT": "http"}, "KAITO_HEALTH_PORT must be"),
        ({"KAITO_NAMESPACES": "a,Team_B"}, "KAITO_NAMESPACES must consist of lower-case letters, .*, got 'Team_B'"),
    ],
)
def test_what_the_operator_would_pass_over_or_fail_on_is_refused(given: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        operator_environment("kaito-system", given)


@pytest.mark.parametrize("namespace", ["BAD_ns", "", "-a", "a.b", "a" * 64])
def test_a_namespace_must_be_a_dns_label(namespace: str) -> None:
    with pytest.raises(ConfigError, match=f"--namespace must consist of .*, got '{namespace}'"):
        operator_environment(namespace, {})


def test_the_settings_are_those_that_the_variables_stand_for() -> None:
    given = {"KAITO_CONFIG": "/in/the/pod.yaml", "KAITO_PLUGIN_AZURE__REGION": "west", "KAITO_LEASE_SECONDS": "30"}
    made = operator_environment("serving", given, webhook=True)
    assert made.settings.health_port == int(made.variables["KAITO_HEALTH_PORT"])
    assert made.settings.leader_election and made.settings.leader_election_namespace == "serving"
    assert made.settings.lease_seconds == 30
    assert made.settings.plugins == {"azure": {"region": "west"}}
    assert made.settings.webhook_port == int(made.variables["KAITO_WEBHOOK_PORT"])
    assert made.variables["KAITO_WEBHOOK_NAMESPACE"] == "serving"
    assert made.variables["KAITO_CONFIG"] == "/in/the/pod.yaml"


def test_the_webhook_can_have_another_port_but_not_none() -> None:
    assert operator_environment("n", {"KAITO_WEBHOOK_PORT": "8443"}, webhook=True).settings.webhook_port == 8443
    with pytest.raises(ConfigError, match="KAITO_WEBHOOK_PORT must be 1 or more with --webhook"):
        operator_environment("n", {"KAITO_WEBHOOK_PORT": "0"}, webhook=True)
