"""`kaito validate`, `render`, and what `up` refuses before it starts anything."""

import json
import socket
from pathlib import Path

import pytest
import yaml

from helpers.command_line import kaito

FALCON = Path(__file__).parents[3] / "examples" / "falcon-7b-with-adapter.yaml"
HEAD = "apiVersion: kaito.sh/v1beta1\nkind: Workspace\nmetadata: {name: w}\n"
SMALL = HEAD + "inference: {preset: {name: smollm2-135m-instruct}}\n"


def workspace(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "workspace.yaml"
    path.write_text(text)
    return path


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


def test_validate_reports_faults_and_valid_workspaces_for_programs(tmp_path: Path) -> None:
    good, bad, missing = workspace(tmp_path, SMALL), tmp_path / "bad.yaml", tmp_path / "missing.yaml"
    bad.write_text(HEAD.replace("w", "v") + "inference: {preset: {name: falcon7b}}")
    result = kaito("validate", good, bad, missing, "-o", "yaml")
    assert result.returncode == 1
    valid, unknown, absent = yaml.safe_load(result.stdout)
    assert valid == {"file": str(good), "workspace": "w", "field": None, "error": None, "warnings": []}
    assert (unknown["workspace"], unknown["field"]) == ("v", "inference.preset.name")
    assert "did you mean falcon-7b" in unknown["error"]
    nothing = {"workspace": None, "field": None, "error": "No such file or directory", "warnings": []}
    assert absent == {"file": str(missing), **nothing}


CONFIGURED = HEAD + "inference: {preset: {name: smollm2-135m-instruct}, config: limits}\n"
LIMITS = """\
---
apiVersion: v1
kind: ConfigMap
metadata: {name: limits}
data:
  inference_config.yaml: "vllm: {max-model-len: 1024, swap-space: 4}"
"""


def test_options_of_the_server_are_read_from_the_same_file(tmp_path: Path) -> None:
    result = kaito("render", workspace(tmp_path, CONFIGURED + LIMITS))
    assert '"contextLength": 1024' in result.stdout
    assert "vllm.swap-space of ConfigMap 'limits' is not used by this server" in result.stderr


@pytest.mark.parametrize("text", ["kaito: {context-length: 512}", LIMITS.replace("1024", "512").strip("-\n")])
def test_options_of_the_server_are_read_from_another_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text(text)
    file = workspace(tmp_path, CONFIGURED + LIMITS)
    assert '"contextLength": 512' in kaito("render", file, "--serving-config", tmp_path / "limits.yaml").stdout
    missing = kaito("validate", file, "--serving-config", tmp_path / "none.yaml")
    assert missing.returncode == 1 and missing.stderr.startswith("error: ")


def test_what_is_wrong_with_them_is_a_fault_and_what_is_missing_a_warning(tmp_path: Path) -> None:
    wrong = kaito("validate", workspace(tmp_path, CONFIGURED + LIMITS.replace("1024", "many")))
    assert wrong.returncode == 1
    assert "inference.config names ConfigMap 'limits', whose key inference_config.yaml: vllm.max-model-len must" in (
        wrong.stdout
    )
    absent = kaito("validate", workspace(tmp_path, CONFIGURED), "-o", "json")
    assert absent.returncode == 0
    (row,) = json.loads(absent.stdout)
    assert row["warnings"][0].startswith("inference.config: ConfigMap 'limits' is not in the file")


@pytest.mark.parametrize("arguments", [("-",), ("-f", "-")])
def test_standard_input_is_read(arguments: tuple[str, ...]) -> None:
    checked = kaito("validate", *arguments, stdin=SMALL)
    assert (checked.returncode, checked.stdout) == (0, "standard input: Workspace 'w' is valid\n")
    assert "kind: Deployment" in kaito("render", *arguments, stdin=SMALL).stdout


def test_up_reads_standard_input() -> None:
    assert kaito("up", "-", stdin="a: [1").stderr.startswith("error: standard input: invalid YAML in line 1")


@pytest.mark.parametrize("command", ["validate", "render"])
def test_a_command_without_a_file_says_what_to_name(command: str) -> None:
    result = kaito(command)
    assert result.returncode == 1
    assert result.stderr == "error: no FILE given; name a YAML file with a Workspace, or - for standard input\n"


@pytest.mark.parametrize("command", ["validate", "render", "up"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "invalid YAML in line 1, column 6: expected ',' or ']'"),
        ("", "empty, expected a Workspace"),
        ("kind: Pod", "expected a Workspace of kaito.sh, got only Pod"),
        ("- 1", "must be a mapping"),
        (HEAD + "inference: {}", "inference must have a preset or a template, got neither"),
        (
            HEAD + "inference: {preset: {name: x}, template: {spec: {containers: [{name: c, image: i}]}}}",
            "inference must have a preset or a template, got both",
        ),
        (HEAD + "inference: {preset: {name: nope}}", "is not an installed preset (known: "),
        (HEAD + "inference: {preset: {name: falcon7b}}", "is not an installed preset (did you mean falcon-7b"),
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
def test_bad_input_ends_with_one_message_that_names_the_file(
    tmp_path: Path, command: str, text: str, words: str
) -> None:
    path = workspace(tmp_path, text)
    result = kaito(command, path)
    assert result.returncode == 1
    (line,) = (result.stdout + result.stderr).splitlines()
    assert line.removeprefix("error: ").startswith(f"{path}: ")
    assert words in line


def test_a_missing_file_is_named() -> None:
    result = kaito("render", "no-such-file.yaml")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error: no-such-file.yaml: No such file or directory\n"


def test_up_serves_one_workspace(tmp_path: Path) -> None:
    path = workspace(tmp_path, f"{SMALL}---\n{SMALL}")
    assert kaito("up", path).stderr == f"error: {path}: expected one Workspace, got 2; kaito up serves one\n"


def test_up_refuses_a_port_in_use_and_malformed_options(tmp_path: Path) -> None:
    path = workspace(tmp_path, SMALL)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        busy = kaito("up", path, "--port", str(port))
    assert busy.returncode == 1 and f"--port {port} cannot be used" in busy.stderr
    assert "--image must be REF=PATH, got 'x'" in kaito("up", path, "--image", "x").stderr
    assert "--weights: '/no/such' does not exist" in kaito("up", path, "--weights", "/no/such", "--port", "0").stderr


def test_a_settings_file_counts_for_every_command(tmp_path: Path) -> None:
    file = tmp_path / "kaito.yaml"
    file.write_text("image_registry: registry.example/mirror\n")
    assert "image: registry.example/mirror/" in kaito("render", FALCON, KAITO_CONFIG=str(file)).stdout


def test_a_document_with_a_spec_is_told_which_lines_to_move(tmp_path: Path) -> None:
    head = "apiVersion: kaito.sh/v1beta1\nkind: Workspace\nmetadata: {name: chat}\n"
    text = head + "spec:\n  resource: {count: 1}\n  inference: {preset: {name: falcon-7b}}\n"
    result = kaito("validate", workspace(tmp_path, text))
    assert result.returncode == 1
    assert result.stdout == (
        f"{tmp_path / 'workspace.yaml'}: spec must hold nothing but replicas: resource and inference stand beside "
        "metadata, not under spec; move spec.resource and spec.inference there\n"
    )


def test_the_hubs_name_of_installed_weights_is_valid_and_said(tmp_path: Path) -> None:
    path = workspace(tmp_path, HEAD + "inference: {preset: {name: microsoft/Phi-4-mini-instruct}}")
    result = kaito("validate", path)
    assert (result.returncode, result.stdout) == (0, f"{path}: Workspace 'w' is valid\n")
    assert "is taken as the preset 'phi-4-mini-instruct'" in result.stderr


def test_render_leaves_the_nodes_of_a_pool_to_the_scheduler(tmp_path: Path) -> None:
    head = HEAD.replace("{name: w}", "{name: w, annotations: {kaito.sh/node-provider: scheduler}}")
    text = head + "resource: {labelSelector: {matchLabels: {pool: a}}}\ninference: {preset: {name: falcon-7b}}"
    (pods,) = [
        o for o in yaml.safe_load_all(kaito("render", workspace(tmp_path, text)).stdout) if o["kind"] == "Deployment"
    ]
    spec = pods["spec"]["template"]["spec"]
    assert (spec["nodeSelector"], spec.get("affinity")) == ({"pool": "a"}, None)
