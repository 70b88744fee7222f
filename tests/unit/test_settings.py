"""Settings from an environment."""

import dataclasses

import pytest

from kaito_core.errors import ConfigError
from kaito_core.settings import Settings


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.from_env({"PATH": "/bin", "KAITO_UNKNOWN": "x"}) == Settings()


def test_every_field_can_be_set() -> None:
    env = {
        "KAITO_NAMESPACES": "a, b,",
        "KAITO_IMAGE_REGISTRY": "registry.example/mirror",
        "KAITO_RUNTIME_IMAGE": "registry.example/runtime:1",
        "KAITO_NODE_PROVIDER": "gpu_onprem",
        "KAITO_PLUGINS_ALLOW": "falcon",
        "KAITO_PLUGINS_DENY": "llama,gpu_azure",
        "KAITO_PLUGINS_DIR": "/plugins",
        "KAITO_STRICT_PLUGINS": "True",
        "KAITO_ALLOW_GENERIC_MODELS": "true",
        "KAITO_GENERIC_MODELS_DIR": "/models",
        "KAITO_MAX_SURGE": "1",
        "KAITO_HEALTH_PORT": "0",
        "KAITO_LOG_LEVEL": "DEBUG",
        "KAITO_RESYNC_SECONDS": "60.5",
        "KAITO_LEADER_ELECTION": "true",
        "KAITO_LEADER_ELECTION_NAMESPACE": "serving",
        "KAITO_LEASE_SECONDS": "30",
        "KAITO_PLUGIN_GPU_AZURE__NODE_CLASS": "default",
        "KAITO_PLUGIN_GPU_AZURE__REGION": "west",
    }
    read = Settings.from_env(env)
    assert read == Settings(
        namespaces=("a", "b"),
        image_registry="registry.example/mirror",
        runtime_image="registry.example/runtime:1",
        node_provider="gpu_onprem",
        plugins_allow=("falcon",),
        plugins_deny=("llama", "gpu_azure"),
        plugins_dir="/plugins",
        strict_plugins=True,
        allow_generic_models=True,
        generic_models_dir="/models",
        max_surge=1,
        health_port=0,
        log_level="DEBUG",
        resync_seconds=60.5,
        leader_election=True,
        leader_election_namespace="serving",
        lease_seconds=30,
        plugins={"gpu_azure": {"node_class": "default", "region": "west"}},
    )
    changed = {f.name for f in dataclasses.fields(Settings) if getattr(read, f.name) != getattr(Settings(), f.name)}
    assert changed == {f.name for f in dataclasses.fields(Settings)}, "a setting that this test does not set"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("KAITO_STRICT_PLUGINS", "perhaps", "KAITO_STRICT_PLUGINS must be true or false, got 'perhaps'"),
        ("KAITO_MAX_SURGE", "one", "KAITO_MAX_SURGE must be a number, got 'one'"),
        ("KAITO_MAX_SURGE", "-1", "KAITO_MAX_SURGE must be 0 or more, got '-1'"),
        ("KAITO_HEALTH_PORT", "70000", "KAITO_HEALTH_PORT must be a port, or 0 for none, got '70000'"),
        ("KAITO_RESYNC_SECONDS", "nan", "KAITO_RESYNC_SECONDS must be between 1 and 86400, got 'nan'"),
        ("KAITO_LEASE_SECONDS", "2", "KAITO_LEASE_SECONDS must be between 3 and 300, got '2'"),
        ("KAITO_RESYNC_SECONDS", "0", "KAITO_RESYNC_SECONDS must be between 1 and 86400, got '0.0'"),
        (
            "KAITO_LOG_LEVEL",
            "loud",
            "KAITO_LOG_LEVEL must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, got 'loud'",
        ),
        (
            "KAITO_PLUGIN_GPU_AZURE_REGION",
            "west",
            "KAITO_PLUGIN_GPU_AZURE_REGION must be of the form KAITO_PLUGIN_<PLUGIN>__<OPTION>: it names no option",
        ),
    ],
)
def test_refuses(variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({variable: value})
    assert str(caught.value) == message
