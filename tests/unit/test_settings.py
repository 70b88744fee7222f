"""Settings from an environment and from a file."""

import re
from pathlib import Path

import pytest

from kaito_core.api.workspace.pod import PodOptions
from kaito_core.errors import ConfigError
from kaito_core.settings import Settings, setting_docs


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
        "KAITO_SOURCES": "hf=acme,https=acme",
        "KAITO_AUTOSCALED_NODES": "true",
        "KAITO_FETCH_HTTP": "true",
        "KAITO_FETCH_HOSTS": "*.corp.example",
        "KAITO_FETCH_PRIVATE_HOSTS": "10.0.0.0/8,registry.corp.example",
        "KAITO_FETCH_MAX_GIB": "2.5",
        "KAITO_FETCH_CACHE_DIR": "/cache",
        "KAITO_MAX_SURGE": "1",
        "KAITO_POD_DEFAULTS": "{labels: {team: a}}",
        "KAITO_WEIGHTS_HOST_PATHS": "/var/lib/kaito",
        "KAITO_HEALTH_PORT": "0",
        "KAITO_LOG_LEVEL": "debug",
        "KAITO_LOG_FORMAT": "json",
        "KAITO_WATCH_SILENCE_SECONDS": "120",
        "KAITO_API_TIMEOUT_SECONDS": "5",
        "KAITO_RESYNC_SECONDS": "60.5",
        "KAITO_LEADER_ELECTION": "true",
        "KAITO_LEADER_ELECTION_NAMESPACE": "serving",
        "KAITO_LEASE_SECONDS": "30",
        "KAITO_WEBHOOK_PORT": "9443",
        "KAITO_WEBHOOK_NAMESPACE": "serving",
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
        sources=("hf=acme", "https=acme"),
        autoscaled_nodes=True,
        fetch_http=True,
        fetch_hosts=("*.corp.example",),
        fetch_private_hosts=("10.0.0.0/8", "registry.corp.example"),
        fetch_max_gib=2.5,
        fetch_cache_dir="/cache",
        max_surge=1,
        pod_defaults=PodOptions(labels={"team": "a"}),
        weights_host_paths=("/var/lib/kaito",),
        health_port=0,
        log_level="DEBUG",
        log_format="json",
        watch_silence_seconds=120.0,
        api_timeout_seconds=5.0,
        resync_seconds=60.5,
        leader_election=True,
        leader_election_namespace="serving",
        lease_seconds=30,
        webhook_port=9443,
        webhook_namespace="serving",
        plugins={"gpu_azure": {"node_class": "default", "region": "west"}},
    )
    changed = {name for name in Settings.model_fields if getattr(read, name) != getattr(Settings(), name)}
    assert changed == set(Settings.model_fields), "a setting that this test does not set"


def test_fetches_in_pods_follow_the_same_settings() -> None:
    assert Settings().for_fetches() == {}
    given = Settings(
        sources=("hf=acme",),
        fetch_http=True,
        fetch_private_hosts=("10.0.0.0/8", "a.example"),
        fetch_max_gib=0.25,
        fetch_cache_dir="/of/the/operator",
    )
    environ = given.for_fetches()
    assert Settings.from_env(environ) == given.model_copy(update={"fetch_cache_dir": ""})
    assert "KAITO_FETCH_CACHE_DIR" not in environ


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("KAITO_STRICT_PLUGINS", "perhaps", "KAITO_STRICT_PLUGINS must be true or false, got 'perhaps'"),
        ("KAITO_MAX_SURGE", "one", "KAITO_MAX_SURGE must be a whole number, 0 or more, got 'one'"),
        ("KAITO_MAX_SURGE", "-1", "KAITO_MAX_SURGE must be a whole number, 0 or more, got '-1'"),
        ("KAITO_HEALTH_PORT", "70000", "KAITO_HEALTH_PORT must be a whole number, between 0 and 65535, got '70000'"),
        ("KAITO_RESYNC_SECONDS", "nan", "KAITO_RESYNC_SECONDS must be a number, between 1 and 86400, got 'nan'"),
        ("KAITO_FETCH_MAX_GIB", "0", "KAITO_FETCH_MAX_GIB must be a number, above 0 and at most 1024, got '0'"),
        ("KAITO_SOURCES", "hf", "KAITO_SOURCES must be a list of texts, each SCHEME=SOURCE, got 'hf'"),
        ("KAITO_LEASE_SECONDS", "2", "KAITO_LEASE_SECONDS must be a whole number, between 3 and 300, got '2'"),
        ("KAITO_RESYNC_SECONDS", "0", "KAITO_RESYNC_SECONDS must be a number, between 1 and 86400, got '0'"),
        (
            "KAITO_LOG_LEVEL",
            "loud",
            "KAITO_LOG_LEVEL must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL, got 'loud'",
        ),
        (
            "KAITO_PLUGIN_GPU_AZURE_REGION",
            "west",
            "KAITO_PLUGIN_GPU_AZURE_REGION names no option: write KAITO_PLUGIN_<PLUGIN>__<OPTION>",
        ),
    ],
)
def test_refuses(variable: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({variable: value})
    assert str(caught.value) == message


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "kaito.yaml"
    path.write_text(text)
    return path


EVERYTHING = """
namespaces: [a, b]
image_registry: registry.example/mirror
runtime_image: registry.example/runtime:1
node_provider: gpu_onprem
plugins_allow: [falcon]
plugins_deny: [llama, gpu_azure]
plugins_dir: /plugins
strict_plugins: true
allow_generic_models: true
generic_models_dir: /models
sources: [hf=acme]
autoscaled_nodes: true
fetch_http: true
fetch_hosts: ["*.corp.example"]
fetch_private_hosts: [10.0.0.0/8]
fetch_max_gib: 2
fetch_cache_dir: /cache
max_surge: 1
pod_defaults: {labels: {team: a}}
weights_host_paths: [/var/lib/kaito]
health_port: 0
log_level: debug
log_format: json
resync_seconds: 60
watch_silence_seconds: 120
api_timeout_seconds: 5.5
leader_election: true
leader_election_namespace: serving
lease_seconds: 30
webhook_port: 9443
webhook_namespace: serving
plugins:
  gpu_azure: {node_class: default, regions: 3, spot: true}
"""


def test_every_field_can_be_set_in_a_file(tmp_path: Path) -> None:
    read = Settings.from_env({"KAITO_CONFIG": str(_file(tmp_path, EVERYTHING))})
    assert read.namespaces == ("a", "b") and read.resync_seconds == 60.0 and read.log_level == "DEBUG"
    assert read.plugins == {"gpu_azure": {"node_class": "default", "regions": "3", "spot": "true"}}
    changed = {name for name in Settings.model_fields if getattr(read, name) != getattr(Settings(), name)}
    assert changed == set(Settings.model_fields), "a setting that this test does not set"
    for name in Settings.model_fields:
        assert type(getattr(read, name)) is type(getattr(Settings(), name))


def test_the_environment_wins_over_the_file_and_a_given_file_over_the_named_one(tmp_path: Path) -> None:
    file = _file(tmp_path, "max_surge: 3\nlease_seconds: 20\nplugins: {gpu_azure: {region: west, zone: '1'}}\n")
    env = {
        "KAITO_CONFIG": str(tmp_path / "absent.yaml"),
        "KAITO_MAX_SURGE": "2",
        "KAITO_PLUGIN_GPU_AZURE__REGION": "east",
    }
    read = Settings.from_env(env, file)
    assert (read.max_surge, read.lease_seconds) == (2, 20)
    assert read.plugins == {"gpu_azure": {"region": "east", "zone": "1"}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("labels: [", "KAITO_POD_DEFAULTS must be a mapping, got 'labels: ['"),
        ("5", "KAITO_POD_DEFAULTS must be a mapping, got '5'"),
        ("{label: {}}", "KAITO_POD_DEFAULTS: label is not a field of inference.pod; check the spelling or remove it"),
        ("{env: [{name: HOME}]}", "KAITO_POD_DEFAULTS: env[0] must not set 'HOME', which the operator, torchrun or"),
        ('{"resources": {"limits": {"cpu": "much"}}}', "KAITO_POD_DEFAULTS: resources.limits.cpu must be a Kubernetes"),
    ],
)
def test_wrong_defaults_of_pods_are_named_by_key(given: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({"KAITO_POD_DEFAULTS": given})
    assert str(caught.value).startswith(message)
    file = _file(tmp_path, f"pod_defaults: {given}\n" if given != "labels: [" else "pod_defaults: text\n")
    with pytest.raises(ConfigError, match=r"kaito.yaml: pod_defaults"):
        Settings.from_env({"KAITO_CONFIG": str(file)})


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_gives_the_defaults(text: str, tmp_path: Path) -> None:
    assert Settings.from_env({}, _file(tmp_path, text)) == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("namespace: [a]", "unknown setting 'namespace'; did you mean 'namespaces'? known: allow_generic_models, "),
        ("KAITO_MAX_SURGE: 1", "unknown setting 'KAITO_MAX_SURGE'; did you mean 'max_surge'? known: "),
        ("qqq: 1", "unknown setting 'qqq'; known: allow_generic_models, "),
        ("1: 1", "unknown setting '1'; known: "),
        ("max_surge: one", "max_surge must be a whole number, 0 or more, got 'one'; write for example max_surge: 0"),
        ("max_surge: true", "max_surge must be a whole number, 0 or more, got 'True'; write"),
        ("max_surge: -1", "max_surge must be a whole number, 0 or more, got '-1'"),
        ("strict_plugins: 1", "strict_plugins must be true or false, got '1'; write for example strict_plugins: fal"),
        ("resync_seconds: .nan", "resync_seconds must be a number, between 1 and 86400, got 'nan'"),
        ("log_format: xml", "log_format must be one of text, json, got 'xml'"),
        ("log_format: 1", "log_format must be one of text, json, got '1'; write for example log_format: text"),
        ("namespaces: a", "namespaces must be a list of texts, got 'a'; write for example namespaces: [NAME, ...]"),
        ("namespaces: [1]", "namespaces must be a list of texts, got '[1]'"),
        ("namespaces:", "namespaces must be a list of texts, got 'None'"),
        ("plugins: [a]", "plugins must be a mapping of mappings, got '['a']'; write {PLUGIN: {OPTION: VALUE}}"),
        ("plugins: {a: 1}", "plugins must be a mapping of mappings"),
        ("plugins: {a: {b: [1]}}", "plugins.a.b must be a text, got '[1]'"),
        ("[a]", "must be a mapping from settings to values, got '['a']'"),
        ("a: [", "invalid YAML: while parsing a flow"),
    ],
)
def test_refuses_in_a_file(text: str, message: str, tmp_path: Path) -> None:
    file = _file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        Settings.from_env({}, file)
    assert str(caught.value).startswith(f"{file}: {message}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: No such file"):
        Settings.from_env({"KAITO_CONFIG": str(tmp_path / "absent.yaml")})


def test_every_setting_is_described() -> None:
    docs = {doc.name: doc for doc in setting_docs()}
    assert list(docs) == list(Settings.model_fields)
    assert all(doc.meaning.endswith(".") and doc.kind for doc in docs.values())
    assert (docs["lease_seconds"].variable, docs["lease_seconds"].default) == ("KAITO_LEASE_SECONDS", "15")
    assert docs["lease_seconds"].kind == "a whole number, between 3 and 300"


def test_the_example_of_a_file_can_be_read(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
    (block,) = re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
    read = Settings.from_env({}, _file(tmp_path, block))
    assert read.namespaces == ("team-a", "team-b") and read.log_format == "json"
    assert read.plugins == {"gpu_azure": {"node_class": "default"}}
