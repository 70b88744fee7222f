"""The numbers of the Llama presets agree with the architectures."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from kaito_core.api import ModelPreset
from kaito_llama.plugin import kaito_model_presets
from kaito_llama.presets import PRESETS
from kaito_llama.recipe import kaito_runtime_recipes

#: From config.json: layers, hidden size, heads, key-value heads, MLP width, vocabulary, stored embeddings.
ARCHITECTURES = {
    "llama-2-7b": (32, 4096, 32, 32, 11008, 32000, 2),
    "llama-2-13b": (40, 5120, 40, 40, 13824, 32000, 2),
    "llama-2-70b": (80, 8192, 64, 8, 28672, 32000, 2),
    "llama-3.1-8b": (32, 4096, 32, 8, 14336, 128256, 2),
    "deepseek-r1-distill-llama-8b": (32, 4096, 32, 8, 14336, 128256, 2),
    "llama-3.3-70b": (80, 8192, 64, 8, 28672, 128256, 2),
    "smollm2-135m": (30, 576, 9, 3, 1536, 49152, 1),
}
BY_NAME = {preset.name: preset for preset in PRESETS}


def architecture(preset: ModelPreset) -> tuple[int, int, int, int, int, int, int]:
    return ARCHITECTURES[preset.name.removesuffix("-chat").removesuffix("-instruct")]


def test_names() -> None:
    assert [preset.name for preset in kaito_model_presets()] == [
        *("llama-2-7b", "llama-2-7b-chat", "llama-2-13b", "llama-2-13b-chat", "llama-2-70b", "llama-2-70b-chat"),
        *("llama-3.1-8b-instruct", "deepseek-r1-distill-llama-8b", "llama-3.3-70b-instruct", "smollm2-135m-instruct"),
    ]
    assert BY_NAME["llama-2-13b-chat"].weights.repository == "meta-llama/Llama-2-13b-chat-hf"


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
class TestPreset:
    def test_weights_are_pinned(self, preset: ModelPreset) -> None:
        assert re.fullmatch("[0-9a-f]{40}", preset.weights.revision)

    def test_size_is_that_of_the_parameters(self, preset: ModelPreset) -> None:
        layers, hidden, heads, kv, mlp, vocabulary, embeddings = architecture(preset)
        attention = 2 * hidden * hidden + 2 * hidden * kv * (hidden // heads)
        count = layers * (attention + 3 * hidden * mlp + 2 * hidden) + embeddings * vocabulary * hidden + hidden
        assert preset.weights.size_gib == pytest.approx(2 * count / 2**30, abs=0.01)

    def test_cache_counts_key_value_heads_only(self, preset: ModelPreset) -> None:
        layers, hidden, heads, kv, *_ = architecture(preset)
        assert preset.kv_bytes_per_token == 2 * kv * (hidden // heads) * layers * 2

    def test_resources_hold_the_weights_and_a_short_context(self, preset: ModelPreset) -> None:
        if preset.gpus:
            context = 2048 * preset.kv_bytes_per_token / 2**30
            assert preset.gpu_memory_gib >= preset.weights.size_gib + context
        assert preset.disk_gib > preset.weights.size_gib
        assert preset.memory_gib > 2 * preset.weights.size_gib or preset.gpus

    def test_each_number_has_a_source(self, preset: ModelPreset) -> None:
        numbers = {"gpus", "memory_gib", "disk_gib", "context_length", "kv_bytes_per_token", "startup_seconds"}
        assert numbers | {"weights.revision", "weights.size_gib"} <= set(preset.sources)
        assert "gpu_memory_gib" in preset.sources or not preset.gpus


def test_larger_models_span_nodes() -> None:
    assert {preset.name for preset in PRESETS if preset.distributed} == {
        *("llama-2-13b", "llama-2-13b-chat", "llama-2-70b", "llama-2-70b-chat", "llama-3.3-70b-instruct"),
    }


def test_meta_models_ask_for_a_token() -> None:
    open_to_all = {preset.name for preset in PRESETS if not preset.weights.gated}
    assert open_to_all == {"smollm2-135m-instruct", "deepseek-r1-distill-llama-8b"}
    assert {preset.access for preset in PRESETS if preset.license == "llama2"} == {"private"}


def test_smollm2_needs_no_gpu_and_comes_as_a_package() -> None:
    preset = BY_NAME["smollm2-135m-instruct"]
    assert (preset.gpus, preset.gpu_memory_gib) == (0, 0)
    module, file = str(preset.weights.package).split(":")
    found = find_spec(module)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{module} is not installed")
    assert (Path(found.submodule_search_locations[0]) / file).is_file()


def test_recipe_is_for_the_presets() -> None:
    (recipe,) = kaito_runtime_recipes()
    assert {preset.recipe for preset in PRESETS} == {recipe.name}
    assert {preset.architecture for preset in PRESETS} <= set(recipe.architectures)


def test_operator_half_needs_no_torch() -> None:
    code = "import sys, kaito_llama.plugin; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
