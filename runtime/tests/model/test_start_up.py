"""What the operator says before there is a machine, from a preset's size alone, is what the server finds at start."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
)

from kaito_core.api import GpuSku, ModelPreset
from kaito_core.api.preset.memory import (
    PAGE_RANKS,
    MemoryOptions,
    MemoryPlan,
    ModelMemory,
    format_bytes,
    gpu_room,
    pages_of,
    plan_memory,
    step_bytes,
)
from kaito_core.errors import DoesNotFitError
from kaito_core.reconcile.nodes.sizing import size

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
BF16 = 2
#: The operator's estimate is careful: it may refuse a GPU on which the server would have less than this left.
ESTIMATE = 0.025
_PHI3_MEDIUM = Phi3Config(
    hidden_size=5120,
    intermediate_size=17920,
    num_hidden_layers=40,
    num_attention_heads=40,
    num_key_value_heads=10,
    vocab_size=32064,
)
_PHI3_MINI = Phi3Config(
    hidden_size=3072, intermediate_size=8192, num_hidden_layers=32, num_attention_heads=32, vocab_size=32064
)
_LLAMA2 = {"vocab_size": 32000}
_LLAMA2_7B = LlamaConfig(**_LLAMA2, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32)
_LLAMA2_13B = LlamaConfig(
    **_LLAMA2, hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40
)
_70B: dict[str, Any] = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
}
_LLAMA2_70B = LlamaConfig(**_LLAMA2, **_70B)
_MISTRAL = MistralConfig(vocab_size=32768, num_key_value_heads=8)
_FALCON_7B = FalconConfig(hidden_size=4544, num_hidden_layers=32, num_attention_heads=71, vocab_size=65024)
_FALCON_40B = FalconConfig(
    hidden_size=8192,
    num_hidden_layers=60,
    num_attention_heads=128,
    num_kv_heads=8,
    new_decoder_architecture=True,
    vocab_size=65024,
)


def _qwen2(width: int, wide: int, layers: int, heads: int, kv_heads: int) -> Qwen2Config:
    return Qwen2Config(
        hidden_size=width,
        intermediate_size=wide,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=152064,
    )


#: The sizes in the config.json of each preset's repository.
CONFIGS: dict[str, PretrainedConfig] = {
    "falcon-7b": _FALCON_7B,
    "falcon-40b": _FALCON_40B,
    "llama-2-7b": _LLAMA2_7B,
    "llama-2-13b": _LLAMA2_13B,
    "llama-2-70b": _LLAMA2_70B,
    "llama-3.1-8b-instruct": LlamaConfig(
        vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_key_value_heads=8
    ),
    "llama-3.3-70b-instruct": LlamaConfig(vocab_size=128256, **_70B),
    "mistral-7b": _MISTRAL,
    "phi-3-mini-4k-instruct": _PHI3_MINI,
    "phi-3-medium-4k-instruct": _PHI3_MEDIUM,
    "phi-4": Phi3Config(**{**_PHI3_MEDIUM.to_diff_dict(), "vocab_size": 100352}),
    "qwen2.5-coder-7b-instruct": _qwen2(3584, 18944, 28, 28, 4),
    "qwen2.5-coder-32b-instruct": _qwen2(5120, 27648, 64, 40, 8),
    "deepseek-r1-distill-qwen-14b": _qwen2(5120, 13824, 48, 40, 8),
}
_ROWWISE = ("o_proj", "down_proj", "dense", "dense_4h_to_h")  # cut along K; all others along N


def _module(name: str, folder: Path = REFERENCE) -> Any:
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = _module("generate_start_up")
REGISTRY = GENERATE.PluginRegistry.discover(GENERATE.Settings())


class Exact:
    """A model's sizes, from its layers."""

    def __init__(self, config: PretrainedConfig) -> None:
        self.layers, self.width, self.vocabulary = config.num_hidden_layers, config.hidden_size, config.vocab_size
        one = type(config)(**{**config.to_diff_dict(), "num_hidden_layers": 1, "layer_types": None})
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(one)
        linears = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "lm_head" not in n}
        self.shapes = [(n.rpartition(".")[2], m.in_features, m.out_features) for n, m in linears.items()]
        self.head = self.vocabulary * self.width

    def memory(self, preset: ModelPreset, gpus: int) -> ModelMemory:
        cut = self.layers * sum(k * n for _, k, n in self.shapes) + self.head
        sides = sum(k // gpus + n if name in _ROWWISE else k + n // gpus for name, k, n in self.shapes)
        ends = 2 * (self.vocabulary + self.width) if gpus == 1 else 0
        per_token, per_row = step_bytes(self.width, self.vocabulary, BF16)
        return ModelMemory(
            weights=BF16 * (cut // gpus + self.head),
            kv_per_token=preset.kv_bytes_per_token // gpus,
            page=(self.layers * sides + ends) * PAGE_RANKS * BF16,
            step_per_token=per_token,
            logits_per_row=per_row,
            context_length=preset.context_length,
        )


@pytest.mark.parametrize("name", CONFIGS)
def test_operator_and_server_agree_on_every_machine(name: str) -> None:
    preset = REGISTRY.presets[name]
    exact = Exact(CONFIGS[name])
    whole = exact.memory(preset, 1)
    assert whole.weights == pytest.approx(preset.weights.size_gib * 2**30, rel=0.02)
    differ = []
    for sku in GENERATE.machines(REGISTRY):
        for nodes in (1, 2, 4, 8) if preset.distributed else (1,):

            def starts(gpus: int, share: float = 1.0, sku: GpuSku = sku, nodes: int = nodes) -> bool:
                room = int(gpu_room(sku.memory_per_gpu_gib, sku.gpu_model) * share)
                return plan_memory(exact.memory(preset, gpus * nodes), room, gpus=gpus * nodes).starts

            try:
                sizing = size(preset, nodes, sku)
            except DoesNotFitError as error:
                own = sku.gpu_memory_gib * nodes < preset.gpu_memory_gib  # it may ask for more than the arithmetic
                shared = [n for n in range(1, sku.gpus + 1) if preset.heads % (n * nodes) == 0]
                if not own and any(starts(gpus, 1 - ESTIMATE) for gpus in shared):
                    differ.append((nodes, sku, "starts", str(error)))
            else:
                if not starts(sizing.gpus):
                    differ.append((nodes, sku, "does not start", sizing))
    assert not differ


def test_the_page_says_so() -> None:
    assert GENERATE.PAGE.read_text(encoding="utf-8") == GENERATE.page(), (
        "regenerate it: python docs/reference/generate_start_up.py"
    )


MODEL = ModelMemory(weights=1000, kv_per_token=1, page=10, step_per_token=0, logits_per_row=0, context_length=4096)


def plan(room: int, options: MemoryOptions = MemoryOptions()) -> MemoryPlan:  # noqa: B008 (frozen)
    return plan_memory(MODEL, room, options, beside=0)


def test_need_comes_first_and_the_rest_is_shared() -> None:
    least = 1000 + 4 * 10 + 2048
    assert not plan(least - 1).starts and "2048 tokens of keys and values" in plan(least - 1).missing
    assert (plan(least).starts, plan(least).context_length, plan(least).adapter_pages) == (True, 2048, 4)
    full = plan(1000 + 4 * 10 + 4096)
    assert (full.context_length, full.cache_tokens, full.adapter_pages) == (4096, 4096, 4)
    rich = plan(1000 + 4 * 10 + 4096 + 1000)
    assert (rich.adapter_pages, rich.cache_tokens) == (4 + 200 // 10, 4096 + 800)
    most = plan(10**9)
    assert most.cache_tokens == 4096 * 64, "what all requests can use"


def test_what_was_asked_for_is_kept_or_refused_with_the_flag() -> None:
    asked = plan(10_000, MemoryOptions(adapter_bytes=1000, max_adapter_rank=256, cache_bytes=500))
    assert (asked.starts, asked.adapter_pages, asked.cache_tokens, asked.context_length) == (True, 100, 500, 500)
    assert "--cache-gib lower" in plan(10_000, MemoryOptions(cache_bytes=10_000)).missing.replace("set ", "")
    assert "set --adapter-memory lower" in plan(10_000, MemoryOptions(adapter_bytes=8000)).missing
    small = plan(10_000, MemoryOptions(adapter_bytes=30, max_adapter_rank=64)).missing
    assert "holds 3 pages of 16 ranks, an adapter of rank 64 needs 4" in small
    assert "holds 0 pages" in plan(10_000, MemoryOptions(adapter_bytes=9)).missing
    assert "not one token" in plan(10_000, MemoryOptions(cache_bytes=0)).missing


def test_the_table_adds_up() -> None:
    found = plan(10_000)
    assert sum(item.nbytes for item in found.items) <= found.room
    assert found.table().splitlines()[-1].startswith("in all")
    assert [format_bytes(n) for n in (2**20, 3 * 2**29, -1)] == ["1 MiB", "1.5 GiB", "0 MiB"]
    assert [pages_of(rank) for rank in (1, 16, 17)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("gib", "model", "usable"), [(16, "NVIDIA T4", 14.5), (15, "Tesla-T4", 14.5), (4, "NVIDIA A10", 3.9), (80, "", 78)]
)
def test_the_driver_keeps_some_of_a_card(gib: float, model: str, usable: float) -> None:
    assert gpu_room(gib, model) == int(usable * 2**30)
