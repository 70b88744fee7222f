"""`kaito install` and `kaito crd`."""

import pytest
import yaml

from helpers.command_line import kaito


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
        ("KAITO_NAMESPACES", "--env must be KAITO_NAME=VALUE, got 'KAITO_NAMESPACES'"),
        ("PATH=/bin", "--env must be KAITO_NAME=VALUE, got 'PATH=/bin'"),
        ("KAITO_MAX_SURGE=x", "KAITO_MAX_SURGE must be a whole number, 0 or more, got 'x'"),
    ],
)
def test_a_setting_that_the_operator_would_not_understand_is_refused(given: str, words: str) -> None:
    result = kaito("install", "--env", given)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {words}")


def test_settings_and_options_of_plugins_reach_the_operator() -> None:
    given = {"KAITO_MAX_SURGE": "1", "KAITO_PLUGIN_GPU_AZURE__NODE_CLASS": "mine"}
    options = [word for name, value in given.items() for word in ("--env", f"{name}={value}")]
    objects = yaml.safe_load_all(kaito("install", *options).stdout)
    (deployment,) = [manifest for manifest in objects if manifest["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert given.items() <= variables.items()


def test_served_namespaces_that_it_does_not_make_are_named() -> None:
    result = kaito("install", "--namespace", "team-a", "--env", "KAITO_NAMESPACES=team-a,team-c,team-b")
    assert result.stderr == "these namespaces must exist before it is applied: team-b, team-c\n"
    kinds = [manifest["kind"] for manifest in yaml.safe_load_all(result.stdout)]
    assert kinds.index("Deployment") < len(kinds) - 1, "rights in them come last, so that the rest is applied"
    assert kaito("install").stderr == ""
