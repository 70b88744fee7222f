"""Presets made from config.json: the numbers against models whose numbers are known, and what is refused."""

from typing import Any

import pytest

from kaito_core.api.preset.from_config import generic_id, generic_preset, kv_bytes_per_token, parameter_count
from kaito_core.errors import InvalidWorkspaceError

#: Layers, attention heads, key-value heads, head size and the bytes that a public catalogue gives a token at 16 bits.
#: Source: KAITO v0.12.0, model catalogue.
CATALOG = {
    "microsoft/phi-4": (40, 40, 10, 128, 204800),
    "microsoft/Phi-4-mini-instruct": (32, 24, 8, 128, 131072),
    "microsoft/Phi-3-mini-4k-instruct": (32, 32, 32, 96, 393216),
    "microsoft/Phi-3-medium-128k-instruct": (40, 40, 10, 128, 204800),
    "microsoft/Phi-3.5-mini-instruct": (32, 32, 32, 96, 393216),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B": (32, 32, 8, 128, 131072),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B": (48, 40, 8, 128, 196608),
    "Qwen/Qwen2.5-Coder-7B-Instruct": (28, 28, 4, 128, 57344),
    "Qwen/Qwen2.5-Coder-32B-Instruct": (64, 40, 8, 128, 262144),
    "Qwen/Qwen3-8B-AWQ": (36, 32, 8, 128, 147456),
    "Qwen/Qwen3.5-9B": (32, 16, 4, 256, 131072),
    "openai/gpt-oss-20b": (24, 64, 8, 64, 49152),
    "openai/gpt-oss-120b": (36, 64, 8, 64, 73728),
    "meta-llama/Llama-3.1-8B-Instruct": (32, 32, 8, 128, 131072),
    "meta-llama/Llama-3.3-70B-Instruct": (80, 64, 8, 128, 327680),
    "mistralai/Mistral-7B-v0.3": (32, 32, 8, 128, 131072),
    "mistralai/Ministral-3-14B-Instruct-2512": (40, 32, 8, 128, 163840),
    "mistralai/Mistral-Medium-3.5-128B": (88, 96, 8, 128, 360448),
    "google/gemma-3-4b-it": (34, 8, 4, 256, 139264),
    "google/gemma-3-27b-it": (62, 32, 16, 128, 507904),
    "google/gemma-4-E2B-it": (35, 8, 1, 256, 35840),
    "MiniMaxAI/MiniMax-M2.7": (62, 48, 8, 128, 253952),
    "ibm-granite/granite-4.1-8b": (40, 32, 8, 128, 163840),
}


@pytest.mark.parametrize("name", CATALOG)
def test_bytes_per_token_are_the_catalogues(name: str) -> None:
    layers, heads, kv_heads, head_dim, expected = CATALOG[name]
    numbers = {
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
    }
    assert kv_bytes_per_token(numbers) == expected


def config(architecture: str = "LlamaForCausalLM", **changes: Any) -> dict[str, Any]:
    """A config.json: Llama 3.1 8B's, with changes."""
    return {
        "architectures": [architecture],
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 131072,
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "vocab_size": 128256,
        **changes,
    }


FALCON_7B = config(
    "FalconForCausalLM",
    model_type="falcon",
    hidden_size=4544,
    num_attention_heads=71,
    num_key_value_heads=None,
    max_position_embeddings=None,
    multi_query=True,
    new_decoder_architecture=False,
    vocab_size=65024,
)
FALCON_40B = {
    **FALCON_7B,
    "hidden_size": 8192,
    "num_attention_heads": 128,
    "num_hidden_layers": 60,
    "num_kv_heads": 8,
    "new_decoder_architecture": True,
}


def qwen2(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int) -> dict[str, Any]:
    return config(
        "Qwen2ForCausalLM",
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=152064,
    )


#: GiB at 16 bits. Source: KAITO v0.12.0, model catalogue; Falcon: public sizes of its safetensors files.
SIZES = {
    "Llama-3.1-8B": (config(), 14.96),
    "Llama-3.3-70B": (
        config(hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64),
        131.42,
    ),
    "Mistral-7B-v0.3": (config("MistralForCausalLM", vocab_size=32768), 13.5),
    "Qwen2.5-Coder-7B": (qwen2(3584, 18944, 28, 28, 4), 14.19),
    "Qwen2.5-Coder-32B": (qwen2(5120, 27648, 64, 40, 8), 61.03),
    "phi-4": (
        config(
            "Phi3ForCausalLM",
            hidden_size=5120,
            intermediate_size=17920,
            num_hidden_layers=40,
            num_attention_heads=40,
            num_key_value_heads=10,
            vocab_size=100352,
        ),
        27.31,
    ),
    "Phi-4-mini, head tied": (
        config(
            "Phi3ForCausalLM",
            hidden_size=3072,
            intermediate_size=8192,
            num_attention_heads=24,
            vocab_size=200064,
            tie_word_embeddings=True,
        ),
        7.15,
    ),
    "falcon-7b": (FALCON_7B, 13.44),
    "falcon-40b": (FALCON_40B, 77.93),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_counted_size_is_that_of_the_files(name: str) -> None:
    numbers, gib = SIZES[name]
    count = parameter_count(numbers)
    assert count is not None and 2 * count / 2**30 == pytest.approx(gib, rel=0.002)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (FALCON_7B, 8192),  # multi-query: one head of 64
        ({**FALCON_7B, "multi_query": False}, 71 * 8192),
        (FALCON_40B, 122880),
        (config(num_key_value_heads=None), 4 * 131072),  # absent: as many as attention heads
    ],
)
def test_bytes_per_token_of_other_forms(numbers: dict[str, Any], expected: int) -> None:
    assert kv_bytes_per_token(numbers) == expected


def test_a_preset_of_a_configuration() -> None:
    preset = generic_preset("meta-llama/Llama-3.1-8B@0e9e39f", config())
    assert (preset.name, preset.architecture, preset.family) == (
        "meta-llama--llama-3.1-8b",
        "LlamaForCausalLM",
        "llama",
    )
    assert (preset.weights.repository, preset.weights.revision) == ("meta-llama/Llama-3.1-8B", "0e9e39f")
    assert (preset.gpus, preset.gpu_memory_gib, preset.context_length) == (1, 17.9, 131072)
    assert preset.dtype == "bfloat16" and preset.recipe == "default"
    numbers = {name for name, kind in type(preset).model_fields.items() if kind.annotation in (int, float)}
    assert numbers <= set(preset.sources) | {"weights.size_gib"}, "every number says where it comes from"


def test_the_size_of_the_files_wins_over_the_formula() -> None:
    assert generic_preset("a/b", config(), weights_bytes=2**30).weights.size_gib == 1
    assert generic_preset("a/b", config("OddForCausalLM"), weights_bytes=2**30).architecture == "OddForCausalLM"


def test_a_large_model_is_spread_over_gpus() -> None:
    preset = generic_preset("a/b", SIZES["Llama-3.3-70B"][0])
    assert (preset.gpus, preset.gpu_memory_gib) == (2, 139.3)


def test_a_missing_dtype_is_transformers_default() -> None:
    numbers = config(torch_dtype=None)
    del numbers["torch_dtype"]
    preset = generic_preset("a/b", numbers)
    assert preset.dtype == "float32" and preset.weights.size_gib == pytest.approx(2 * 14.96, rel=0.002)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (config(kv_lora_rank=512), "has multi-head latent attention (kv_lora_rank)"),
        (config(quantization_config={"quant_method": "awq"}), "is quantised (quantization_config)"),
        (
            config(layer_types=["full_attention", "linear_attention"]),
            "has layers other than attention (linear_attention)",
        ),
        (config("Gemma3ForConditionalGeneration"), "has the architecture Gemma3ForConditionalGeneration, which is no"),
        (
            config("OddForCausalLM"),
            "has the architecture OddForCausalLM, whose size is not known from config.json; put",
        ),
        (config(architectures=None), "has a config.json whose architectures must be a list with one name, got nothing"),
        (config(torch_dtype="int4"), "has the dtype 'int4', not one of float32, bfloat16, float16"),
        (config(num_hidden_layers=None), "has a config.json without num_hidden_layers or n_layer"),
        (config(num_hidden_layers="32"), "has a config.json whose num_hidden_layers must be a positive whole number"),
        (config(hidden_size=-1), "has a config.json whose hidden_size must be a positive whole number, got -1"),
        (config(max_position_embeddings=None), "has a config.json without seq_length"),
        ({}, "has a config.json whose architectures must be a list with one name, got nothing"),
    ],
)
def test_what_cannot_be_known_is_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidWorkspaceError) as caught:
        generic_preset("a/b", numbers)
    assert str(caught.value).startswith(f"inference.preset.name {message}")


@pytest.mark.parametrize("name", ["../b", "a/../b", "a/b/c", "/b", "a/", "a/b@", "a b/c", "-a/b", "a/b\n"])
def test_names_that_are_not_repositories(name: str) -> None:
    with pytest.raises(InvalidWorkspaceError, match="must be ORG/MODEL or ORG/MODEL@REVISION, got"):
        generic_preset(name, config())


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Qwen/Qwen2.5-7B-Instruct", "qwen--qwen2.5-7b-instruct"),
        ("a/b@main", "a--b"),
        ("a/snake_case", "a--snake-case-57d16c87"),
        ("a/snake-case", "a--snake-case"),
    ],
)
def test_model_ids_are_labels(name: str, label: str) -> None:
    assert generic_id(name) == label


def test_long_names_keep_apart() -> None:
    ids = {generic_id(f"org/{'x' * 80}{end}") for end in "ab"}
    assert len(ids) == 2 and all(len(label) <= 63 for label in ids)
