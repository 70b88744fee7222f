"""The numbers of the Falcon presets agree with the architecture."""

import re
import subprocess
import sys

import pytest

from kaito_core.api import ModelPreset
from kaito_falcon.plugin import kaito_model_presets
from kaito_falcon.presets import PRESETS

#: From config.json: layers, hidden size, heads, key-value heads, norms per layer, vocabulary.
ARCHITECTURES = {"7b": (32, 4544, 71, 1, 1, 65024), "40b": (60, 8192, 128, 8, 2, 65024)}


def architecture(preset: ModelPreset) -> tuple[int, int, int, int, int, int]:
    return ARCHITECTURES[preset.name.split("-")[1]]


def parameters(layers: int, hidden: int, heads: int, kv: int, norms: int, vocabulary: int) -> int:
    """Returns the number of parameters in the weight files, output head included."""
    head = hidden // heads
    qkv, dense, mlp = hidden * (hidden + 2 * kv * head), hidden * hidden, 2 * hidden * 4 * hidden
    return layers * (qkv + dense + mlp + norms * 2 * hidden) + 2 * vocabulary * hidden + 2 * hidden


def test_names() -> None:
    names = ["falcon-7b", "falcon-7b-instruct", "falcon-40b", "falcon-40b-instruct"]
    assert [preset.name for preset in kaito_model_presets()] == names
    assert [preset.weights.repository for preset in PRESETS] == [f"tiiuae/{name}" for name in names]


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
class TestPreset:
    def test_weights_are_pinned_or_the_source_says_that_they_are_not(self, preset: ModelPreset) -> None:
        pinned = re.fullmatch("[0-9a-f]{40}", preset.weights.revision) is not None
        assert pinned or "not pinned" in preset.sources["weights.revision"]

    def test_size_is_that_of_the_parameters(self, preset: ModelPreset) -> None:
        assert preset.weights.size_gib == pytest.approx(2 * parameters(*architecture(preset)) / 2**30, abs=0.01)

    def test_cache_counts_key_value_heads_only(self, preset: ModelPreset) -> None:
        layers, hidden, heads, kv, *_ = architecture(preset)
        assert preset.kv_bytes_per_token == 2 * kv * (hidden // heads) * layers * 2

    def test_resources_hold_the_weights(self, preset: ModelPreset) -> None:
        full_context = preset.context_length * preset.kv_bytes_per_token / 2**30
        assert preset.gpu_memory_gib >= preset.weights.size_gib + full_context
        assert preset.disk_gib > preset.weights.size_gib
        assert preset.gpus >= 1

    def test_each_number_has_a_source(self, preset: ModelPreset) -> None:
        numbers = {"gpus", "gpu_memory_gib", "memory_gib", "disk_gib", "context_length", "kv_bytes_per_token"}
        assert numbers | {"weights.revision", "weights.size_gib", "startup_seconds"} <= set(preset.sources)


def test_operator_half_needs_no_torch() -> None:
    code = "import sys, kaito_falcon.plugin; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
