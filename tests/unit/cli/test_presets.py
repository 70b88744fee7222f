"""`kaito presets`: searching, what fits which machine, and presets without a package."""

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from kaito_core.cli.app import app
from kaito_testing.registry import example_preset


def kaito(*arguments: str | Path, env: dict[str, str] | None = None) -> Result:
    """Runs the command in this process; what `main` would print as an error is its `exception`."""
    return CliRunner().invoke(app, [*map(str, arguments)], env=env)


def search(*arguments: str, env: dict[str, str] | None = None) -> dict[str, dict[str, Any]]:
    result = kaito("presets", "search", *arguments, "-o", "json", env=env)
    assert result.exit_code == 0, result.stderr
    return {preset["name"]: preset for preset in json.loads(result.stdout)}


@pytest.fixture(scope="module")
def everything() -> dict[str, dict[str, Any]]:
    return search()


@pytest.mark.parametrize(
    ("arguments", "holds"),
    [
        (["--max-gpu-memory", "20"], lambda p: p["gpu_memory_gib"] <= 20),
        (["--cpu"], lambda p: p["gpus"] == 0),
        (["--license", "apache"], lambda p: p["license"] == "Apache-2.0"),
        (["--family", "Falcon"], lambda p: p["family"] == "falcon"),
        (["SmolLM2"], lambda p: p["name"].startswith("smollm2")),
        (["tiiuae"], lambda p: p["weights"]["repository"].startswith("tiiuae/")),
        (
            ["--family", "llama", "--max-gpu-memory", "15"],
            lambda p: p["family"] == "llama" and p["gpu_memory_gib"] <= 15,
        ),
    ],
)
def test_each_condition_of_a_search_holds(
    everything: dict[str, dict[str, Any]], arguments: list[str], holds: Any
) -> None:
    found = search(*arguments)
    assert found == {name: preset for name, preset in everything.items() if holds(preset)}
    assert 0 < len(found) < len(everything)


def test_what_fits_a_machine_type() -> None:
    one, eight = search("--fits", "standard_nc24ads_a100_v4"), search("--fits", "Standard_ND96isr_H100_v5")
    assert "falcon-7b" in one and "falcon-40b" not in one  # 80 GiB on one GPU; it needs 90
    assert set(one) < set(eight)
    assert "llama-2-70b" not in one
    assert "llama-2-70b" in search("--fits", "Standard_NC96ads_A100_v4", "--nodes", "2")


def test_for_an_unknown_machine_type_a_similar_one_is_suggested() -> None:
    result = kaito("presets", "search", "--fits", "Standard_NC24ads_A100")
    assert result.exit_code == 1
    assert str(result.exception).startswith(
        "--fits: unknown machine type 'Standard_NC24ads_A100'; did you mean Standard_NC24ads_A100_v4"
    )


def test_for_an_unknown_preset_a_similar_one_is_suggested() -> None:
    result = kaito("presets", "show", "smolm2-135m-instruct")
    assert result.exit_code == 1
    assert str(result.exception) == "unknown preset 'smolm2-135m-instruct'; did you mean smollm2-135m-instruct?"


def test_show_says_where_numbers_come_from() -> None:
    preset = yaml.safe_load(kaito("presets", "show", "falcon-40b").stdout)
    assert preset["disk_gib"] > preset["weights"]["size_gib"]
    assert "disk_gib" in preset["sources"]


def test_show_says_which_machines_fit() -> None:
    big = yaml.safe_load(kaito("presets", "show", "falcon-40b").stdout)
    fits = {row["sku"]: row for row in big["fits"]}
    assert fits["Standard_NC48ads_A100_v4"] == {
        "sku": "Standard_NC48ads_A100_v4",
        "provider": "gpu_azure",
        "nodes": 1,
        "gpus": 2,
    }
    assert "Standard_NC24ads_A100_v4" not in fits
    small = yaml.safe_load(kaito("presets", "show", "smollm2-135m-instruct").stdout)
    assert "fits" not in small, "it needs no GPU"


def test_show_of_a_distributed_preset_says_how_many_machines_it_spans() -> None:
    preset = yaml.safe_load(kaito("presets", "show", "llama-2-70b").stdout)
    fits = {row["sku"]: (row["nodes"], row["gpus"]) for row in preset["fits"]}
    assert fits["Standard_NC24ads_A100_v4"][0] > 1
    assert fits["Standard_ND96isr_H100_v5"][0] == 1


def test_a_preset_without_python(tmp_path: Path) -> None:
    record = {"apiVersion": "kaito.sh/v1", "kind": "ModelPreset", **example_preset(name="mine").model_dump(mode="json")}
    (tmp_path / "models.yaml").write_text(yaml.dump(record))
    env = {"KAITO_PLUGINS_DIR": str(tmp_path)}
    assert search("mine", env=env)["mine"]["plugin"] == "models"
    (tmp_path / "bad.yaml").write_text(yaml.dump({**record, "gpu_memory": 1, "disk_gib": -1}))
    result = kaito("presets", "show", "mine", env=env)
    assert result.exit_code == 0 and yaml.safe_load(result.stdout)["name"] == "mine"
    assert f"plugin 'bad' is left out: {tmp_path / 'bad.yaml'}:" in result.stderr
    assert "disk_gib must be greater than 0, got -1" in result.stderr
    assert "gpu_memory is not a field of a preset; did you mean gpu_memory_gib?" in result.stderr


def test_the_schema_that_is_printed_accepts_what_the_reader_accepts() -> None:
    schema = json.loads(kaito("presets", "schema").stdout)
    record = {"apiVersion": "kaito.sh/v1", "kind": "ModelPreset", **example_preset().model_dump(mode="json")}
    jsonschema.validate(record, schema)
    for wrong in ({"gpu": 1}, {"image": ""}, {"disk_gib": -1}, {"kind": "Preset"}, {"name": "Tiny"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**record, **wrong}, schema)


def test_a_generic_model_where_it_is_allowed(tmp_path: Path) -> None:
    folder = tmp_path / "acme" / "Tiny"
    folder.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "max_position_embeddings": 256,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "vocab_size": 1000,
    }
    (folder / "config.json").write_text(json.dumps(config))
    env = {"KAITO_ALLOW_GENERIC_MODELS": "true", "KAITO_GENERIC_MODELS_DIR": str(tmp_path)}
    preset = yaml.safe_load(kaito("presets", "show", "acme/Tiny", env=env).stdout)
    assert preset["name"] == "acme--tiny" and preset["plugin"] == "none, made from its config.json"
    path = tmp_path / "workspace.yaml"
    path.write_text(
        "apiVersion: kaito.sh/v1beta1\nkind: Workspace\nmetadata: {name: w}\ninference: {preset: {name: acme/Tiny}}\n"
    )
    serving = [o for o in yaml.safe_load_all(kaito("render", path, env=env).stdout) if o["kind"] == "ConfigMap"]
    assert json.loads(serving[0]["data"]["serving.json"])["model"]["name"] == "acme--tiny"
    refused = kaito("validate", path)
    assert refused.exit_code == 1 and "set KAITO_ALLOW_GENERIC_MODELS=true" in refused.stdout


def test_up_takes_the_configuration_from_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "workspace.yaml"
    path.write_text(
        "apiVersion: kaito.sh/v1beta1\nkind: Workspace\nmetadata: {name: w}\ninference: {preset: {name: acme/Tiny}}\n"
    )
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"]}')
    allowed = kaito("up", path, "--weights", tmp_path, "--port", "0", env={"KAITO_ALLOW_GENERIC_MODELS": "true"})
    assert allowed.exit_code == 1 and "has the architecture BertModel" in str(allowed.exception)
    forbidden = kaito("up", path, "--weights", tmp_path, "--port", "0")
    assert forbidden.exit_code == 1 and "set KAITO_ALLOW_GENERIC_MODELS=true" in str(forbidden.exception)
