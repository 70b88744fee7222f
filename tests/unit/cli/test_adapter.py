"""`kaito adapter`: what it says of good and bad folders."""

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from helpers.adapter_files import Q_PROJ, save_tensors, write_adapter
from kaito_core.cli.app import app
from kaito_core.local.images import unpack_data


def kaito(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["adapter", *map(str, arguments)])


def test_a_good_adapter_is_described(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "style", base_model_name_or_path="org/Model")
    result = kaito("check", folder)
    assert result.exit_code == 0
    assert "can be served" in result.stdout and "q_proj (1 layer)" in result.stdout
    found = json.loads(kaito("check", folder, "-o", "json").stdout)
    assert (found["works"], found["rank"], found["targets"], found["modules"]) == (True, 4, ["q_proj"], 1)
    # Rank 4 takes one page of 16 ranks, of 8 + 8 numbers each.
    assert (found["gpu_bytes"], found["cpu_bytes"]) == (16 * 16 * 2, 16 * 16 * 4)
    assert found["digest"].startswith("sha256:") and found["base_model"] == "org/Model"


@pytest.mark.parametrize(
    ("value", "config", "words"),
    [
        (math.nan, {}, "lora_A.weight' holds NaN or infinite values"),
        (-math.inf, {}, "holds NaN or infinite values"),
        (1e30, {}, "holds a value of magnitude 1e+30"),
        (0.5, {"use_dora": True}, "use_dora is set to True: DoRA rescales"),
        (0.5, {"r": 8}, "lora_A of 'model.layers.0.self_attn.q_proj' has shape [4, 8], but the configuration says"),
        (0.5, {"target_modules": ["v_proj"]}, "tensors for 'model.layers.0.self_attn.q_proj', which target_modules"),
        (0.5, {"peft_type": "IA3"}, "peft_type must be 'LORA', got 'IA3'"),
    ],
)
def test_a_bad_adapter_ends_with_status_1_and_the_reason(
    value: float, config: dict[str, object], words: str, tmp_path: Path
) -> None:
    result = kaito("check", write_adapter(tmp_path / "style", value=value, **config), "-o", "json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert not found["works"] and words in found["reason"]


def test_values_just_below_the_limit_are_accepted(tmp_path: Path) -> None:
    assert kaito("check", write_adapter(tmp_path / "a", value=65504.0)).exit_code == 0
    assert kaito("check", write_adapter(tmp_path / "b", value=65505.0)).exit_code == 1


@pytest.mark.parametrize(
    ("dtype", "bad", "good"),
    [
        ("BF16", b"\x80\x7f", b"\x7f\x47"),
        ("F16", b"\x00\xfc", b"\xff\x7b"),
        ("F64", b"\0" * 6 + b"\xf0\x7f", b"\0" * 8),
    ],
)
def test_every_dtype_is_looked_into(dtype: str, bad: bytes, good: bytes, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "style")
    for last, status in ((good, 0), (bad, 1)):
        data = b"\0" * len(last) * 31 + last
        pair = {f"{Q_PROJ}.lora_A.weight": (dtype, (4, 8), data), f"{Q_PROJ}.lora_B.weight": (dtype, (8, 4), data)}
        save_tensors(folder / "adapter_model.safetensors", pair)
        assert kaito("check", folder).exit_code == status


def test_what_a_uri_names_is_fetched_first(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "style")
    result = kaito("check", f"file://{folder}")
    assert result.exit_code == 0, result.exception
    assert f"file://{folder} can be served" in result.stdout
    missing = kaito("check", "nothing://anywhere")
    assert missing.exit_code and "nothing" in str(missing.exception)


def test_another_base_model_is_noted(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "style", base_model_name_or_path="org/other")
    result = kaito("check", folder, "--preset", "smollm2-135m-instruct")
    assert result.exit_code == 0
    assert "it was trained on org/other; preset 'smollm2-135m-instruct' serves" in result.stdout
    unknown = kaito("check", folder, "--preset", "smollm2-135m")
    assert "--preset: unknown preset 'smollm2-135m'" in str(unknown.exception)


def test_packing_prints_the_digest_and_what_is_missing(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "style")
    result = kaito("pack", folder, "-o", tmp_path / "image.tar")
    assert result.exit_code == 0, result.stderr
    assert "image.tar: sha256:" in result.stdout and "no /bin/sh" in result.stderr
    assert (unpack_data("style:latest", tmp_path / "image.tar", tmp_path / "root") / "adapter_config.json").is_file()


def test_a_broken_adapter_is_not_packed(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "style", value=math.nan)
    assert "holds NaN" in str(kaito("pack", folder, "-o", tmp_path / "image.tar").exception)
    assert not (tmp_path / "image.tar").exists()
