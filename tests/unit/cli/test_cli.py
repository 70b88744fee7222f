"""The command line, as a program that calls it sees it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kaito_core.settings import setting_docs

EXAMPLES = Path(__file__).parents[3] / "examples"
FALCON = EXAMPLES / "falcon-7b-with-adapter.yaml"


def kaito(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kaito_core.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", **(env or {})},
    )


def workspace(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "workspace.yaml"
    path.write_text(text)
    return path


HEAD = "apiVersion: kaito.sh/v1beta1\nkind: Workspace\nmetadata: {name: w}\n"


def test_presets_list_as_json_has_every_preset_and_never_imports_torch() -> None:
    code = (
        "import sys; from kaito_core.cli import main\n"
        "heavy = ('torch', 'transformers', 'kopf', 'kubernetes')\n"
        "try: main()\n"
        "finally: print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "presets", "list", "-o", "json"], capture_output=True, text=True, timeout=60
    )
    presets = {preset["name"]: preset for preset in json.loads(result.stdout)}
    assert {"falcon-7b", "llama-2-70b-chat", "llama-3.3-70b-instruct", "smollm2-135m-instruct"} <= set(presets)
    assert presets["falcon-7b"]["plugin"] == "falcon"
    assert presets["llama-2-13b"]["workload"] == "StatefulSet"
    assert result.stderr.strip() == "[]"


def test_tables_name_every_preset_and_plugin() -> None:
    presets, plugins = kaito("presets", "list"), kaito("plugins", "list")
    assert "smollm2-135m-instruct" in presets.stdout and "Apache-2.0" in presets.stdout
    for name in ("builtin", "falcon", "llama", "gpu_azure", "gpu_onprem"):
        assert name in plugins.stdout
    assert (presets.returncode, plugins.returncode) == (0, 0)


def test_preset_show_says_where_numbers_come_from() -> None:
    (preset,) = yaml.safe_load(kaito("presets", "show", "falcon-40b").stdout)
    assert preset["disk_gib"] > preset["weights"]["size_gib"]
    assert "disk_gib" in preset["sources"]


def test_plugins_list_as_json_and_the_deny_list() -> None:
    result = kaito("plugins", "list", "-o", "json", env={"KAITO_PLUGINS_DENY": "falcon"})
    states = {plugin["name"]: plugin["state"] for plugin in json.loads(result.stdout)}
    assert states["falcon"] == "skipped" and states["llama"] == "loaded"
    unknown = kaito("validate", FALCON, env={"KAITO_PLUGINS_DENY": "falcon"})
    assert unknown.returncode == 1 and "'falcon-7b' is not an installed preset" in unknown.stdout


def test_a_broken_plugin_is_named_and_stops_a_strict_start(tmp_path: Path) -> None:
    info = tmp_path / "broken-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[kaito]\nbroken = broken_plugin\n")
    (tmp_path / "broken_plugin.py").write_text("import no_such_module\n")
    env = {"PYTHONPATH": str(tmp_path)}
    lenient, doctor = kaito("validate", FALCON, env=env), kaito("plugins", "doctor", env=env)
    assert lenient.returncode == 0 and "plugin 'broken' of broken 1.2 is left out" in lenient.stderr
    assert doctor.returncode == 1 and "no_such_module" in doctor.stdout and "Traceback" in doctor.stdout
    assert kaito("--strict-plugins", "presets", "list", env=env).returncode == 2
    assert kaito("plugins", "list", env={**env, "KAITO_STRICT_PLUGINS": "true"}).returncode == 2


def test_render_prints_what_the_operator_creates() -> None:
    objects = {o["kind"]: o for o in yaml.safe_load_all(kaito("render", FALCON).stdout)}
    assert set(objects) == {"ConfigMap", "Service", "Deployment"}
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    (step,) = [c for c in pod["initContainers"] if c["name"] == "adapter-falcon-7b-adapter"]
    assert step["image"] == "ghcr.io/your-organisation/falcon-7b-adapter:1.0"
    assert "cp -r /data/. /mnt/adapter/falcon-7b-adapter/" in step["command"][-1]
    serving = json.loads(objects["ConfigMap"]["data"]["serving.json"])
    assert [(a["name"], a["strength"]) for a in serving["adapters"]] == [("falcon-7b-adapter", 0.2)]
    assert "0.2" not in json.dumps(objects["Deployment"])  # strengths never restart pods
    assert objects["Service"]["spec"]["ports"][0] | {"name": "", "protocol": ""} == {
        "port": 80,
        "targetPort": 5000,
        "name": "",
        "protocol": "",
    }


def test_crd_is_served_in_both_versions() -> None:
    versions = yaml.safe_load(kaito("crd").stdout)["spec"]["versions"]
    assert [(v["name"], v["served"], v["storage"]) for v in versions] == [
        ("v1alpha1", True, False),
        ("v1beta1", True, True),
    ]


def test_validate_names_every_fault_with_its_field(tmp_path: Path) -> None:
    text = HEAD + (
        "inference:\n  preset: {name: falcon-7b}\n  adapters:\n"
        "  - {source: {name: a, image: x}, strength: abc}\n"
        "  - {source: {name: B_, image: y}, strength: 11}\n"
    )
    result = kaito("validate", workspace(tmp_path, text), "-o", "json")
    faults = {row["field"]: row["error"] for row in json.loads(result.stdout)}
    assert result.returncode == 1
    assert faults["inference.adapters[0].strength"] == "must be a finite number, got 'abc'"
    assert faults["inference.adapters[1].strength"] == "must be between -10 and 10, got 11"
    assert "got 'B_'" in faults["inference.adapters[1].source.name"]


@pytest.mark.parametrize("command", ["validate", "render", "up"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "is no YAML in line"),
        ("kind: Pod", "holds no Workspace"),
        ("- 1", "must be a mapping"),
        (HEAD + "inference: {}", "inference must have a preset or a template, got neither"),
        (
            HEAD + "inference: {preset: {name: x}, template: {spec: {containers: [{name: c, image: i}]}}}",
            "inference must have a preset or a template, got both",
        ),
        (HEAD + "inference: {preset: {name: nope}}", "is not an installed preset (known: "),
        (
            HEAD + "inference: {preset: {name: falcon-7b}, adapters: [{source: {name: a, uri: 's3://b'}}]}",
            "inference.adapters[0].source.uri has the scheme 's3'",
        ),
        (
            HEAD + "inference: {preset: {name: falcon-7b}, adapters: [{source: {name: a, image: x}, strength: .nan}]}",
            "inference.adapters[0].strength must be a finite number",
        ),
    ],
)
def test_bad_input_ends_with_one_message_and_status_1(tmp_path: Path, command: str, text: str, words: str) -> None:
    result = kaito(command, workspace(tmp_path, text))
    assert result.returncode == 1
    assert words in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_file_is_named() -> None:
    result = kaito("render", "no-such-file.yaml")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: no-such-file.yaml: No such file or directory\n"


def test_up_refuses_a_port_in_use_and_malformed_options(tmp_path: Path) -> None:
    import socket

    path = workspace(tmp_path, HEAD + "inference: {preset: {name: smollm2-135m-instruct}}")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        busy = kaito("up", path, "--port", str(port))
    assert busy.returncode == 1 and f"--port {port} cannot be used" in busy.stderr
    assert "--image must be REF=PATH, got 'x'" in kaito("up", path, "--image", "x").stderr
    assert "--weights: '/no/such' does not exist" in kaito("up", path, "--weights", "/no/such", "--port", "0").stderr


def test_the_operators_help_names_every_setting() -> None:
    text = " ".join(kaito("operator", "--help").stdout.split())
    for doc in setting_docs():
        assert f"{doc.variable} ({doc.kind}" in text and doc.meaning in text
    assert "KAITO_LEASE_SECONDS (a whole number, between 3 and 300; default 15)" in text


@pytest.mark.parametrize("arguments", [("--config", "{file}", "operator"), ("operator", "--config", "{file}")])
def test_a_settings_file_that_is_wrong_ends_the_command(arguments: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "kaito.yaml"
    file.write_text("namespace: [a]\n")
    result = kaito(*(part.format(file=file) for part in arguments))
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr.startswith(f"error: {file}: unknown setting 'namespace'; did you mean 'namespaces'?")


def test_a_settings_file_counts_for_every_command(tmp_path: Path) -> None:
    file = tmp_path / "kaito.yaml"
    file.write_text("image_registry: registry.example/mirror\n")
    rendered = kaito("render", FALCON, env={"KAITO_CONFIG": str(file)}).stdout
    assert "image: registry.example/mirror/" in rendered
