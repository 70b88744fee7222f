"""`kaito install` and `kaito crd`."""

import pytest
import yaml

from helpers.command_line import kaito
from kaito_core.settings import Settings


def test_crd_is_served_in_both_versions() -> None:
    versions = yaml.safe_load(kaito("crd").stdout)["spec"]["versions"]
    assert [(v["name"], v["served"], v["storage"]) for v in versions] == [
        ("v1alpha1", True, False),
        ("v1beta1", True, True),
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        # Taken for an unknown variable and ignored, it would give the operator rights in all namespaces.
        ("KAITO_NAMESPACE=team-a", "--env: unknown setting 'KAITO_NAMESPACE'; did you mean KAITO_NAMESPACES"),
        ("kaito_namespace=team-a", "--env: unknown setting 'kaito_namespace'; did you mean KAITO_NAMESPACES"),
        ("KATIO_NAMESPACES=team-a", "--env: unknown setting 'KATIO_NAMESPACES'; did you mean KAITO_NAMESPACES"),
        ("KAITO_NAMESPACES", "--env must be NAME=VALUE, got 'KAITO_NAMESPACES'"),
        ("A B=c", "--env must be NAME=VALUE, NAME of letters, digits, '_', '-' and '.', got 'A B'"),
        ("POD_ID=a", "--env POD_ID cannot be set: it is the name of the operator's own pod"),
        ('KAITO_POD_DEFAULTS={"labelz": {}}', "KAITO_POD_DEFAULTS: labelz is not a field of inference.pod"),
        ("KAITO_MAX_SURGE=x", "KAITO_MAX_SURGE must be a whole number, 0 or more, got 'x'"),
    ],
)
def test_a_setting_that_the_operator_would_not_understand_is_refused(given: str, words: str) -> None:
    result = kaito("install", "--env", given)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {words}")


def _operator_variables(*options: str) -> dict[str, str]:
    objects = yaml.safe_load_all(kaito("install", *options).stdout)
    (deployment,) = [manifest for manifest in objects if manifest["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable.get("value") for variable in container["env"]}


def test_settings_and_other_variables_reach_the_operator() -> None:
    given = {
        "KAITO_MAX_SURGE": "1",
        "KAITO_PLUGIN_GPU_AZURE__NODE_CLASS": "mine",
        "HTTPS_PROXY": "http://proxy.example:3128/?a=b",
    }
    options = [word for name, value in given.items() for word in ("--env", f"{name}={value}")]
    assert given.items() <= _operator_variables(*options).items()


def test_variables_and_authorities_of_pods_are_one_setting() -> None:
    defaults = "KAITO_POD_DEFAULTS={labels: {team: a}, env: [{name: HF_ENDPOINT, value: http://a}]}"
    options = ("--pod-env", "HF_ENDPOINT=http://b", "--pod-env", "NO_PROXY=.svc,10.0.0.0/8")
    found = _operator_variables("--env", defaults, *options, "--ca-bundle", "company/ca.pem")
    assert Settings.from_env(found).pod_defaults.given() == {
        "labels": {"team": "a"},
        "env": [{"name": "HF_ENDPOINT", "value": "http://b"}, {"name": "NO_PROXY", "value": ".svc,10.0.0.0/8"}],
        "caBundle": {"configMap": "company", "key": "ca.pem"},
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--pod-env", "KAITO_PORT=1"), "--pod-env must not set 'KAITO_PORT', which the operator, torchrun or"),
        (("--pod-env", "HTTPS_PROXY"), "--pod-env must be NAME=VALUE, got 'HTTPS_PROXY'"),
        (("--ca-bundle", "Company"), "--ca-bundle must be the name of an object: "),
    ],
)
def test_what_pods_cannot_have_is_refused(options: tuple[str, ...], words: str) -> None:
    result = kaito("install", *options)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {words}")


def test_served_namespaces_that_it_does_not_make_are_named() -> None:
    result = kaito("install", "--namespace", "team-a", "--env", "KAITO_NAMESPACES=team-a,team-c,team-b")
    assert result.stderr == "these namespaces must exist before it is applied: team-b, team-c\n"
    kinds = [manifest["kind"] for manifest in yaml.safe_load_all(result.stdout)]
    assert kinds.index("Deployment") < len(kinds) - 1, "rights in them come last, so that the rest is applied"
    assert kaito("install").stderr == ""
