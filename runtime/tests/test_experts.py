"""Adapters on the experts and routers of mixtures, in batches of several adapters, against PEFT's own forward pass."""

import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from peft_truth import truth
from safetensors.torch import load_file, save_file
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from kaito_runtime.engine.protocol import Job
from kaito_runtime.errors import AdapterLoadError
from kaito_runtime.formats.files import read_adapter
from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.testing.harness import GREEDY, running
from kaito_runtime.testing.models import load_fp32, save_adapter
from kaito_runtime.testing.truth import TINY, save_random

TOLERANCE = 1e-4
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
STACKED = ["experts.gate_up_proj", "experts.down_proj"]
ROUTED = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "head_dim": 8}
MODELS: Mapping[str, tuple[type, Any]] = {
    "qwen": (Qwen3MoeForCausalLM, lambda: Qwen3MoeConfig(**TINY, **ROUTED)),
    "mixtral": (MixtralForCausalLM, lambda: MixtralConfig(**TINY, num_local_experts=4, num_experts_per_tok=2)),
    "gptoss": (
        GptOssForCausalLM,
        lambda: GptOssConfig(**TINY, num_local_experts=4, num_experts_per_tok=2, head_dim=8, sliding_window=64),
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: save_random(make(config()), folder / name) for name, (make, config) in MODELS.items()}


def saved(model: Path, folder: Path, seed: int = 1, **config: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return save_adapter(model, folder, seed=seed, **{"r": 4, "lora_alpha": 8} | config)


def singly(model: Path, folder: Path, *, prefix: str, layers: tuple[str, str, str], **config: Any) -> Path:
    """Writes an adapter as PEFT wrote it when experts were linear layers: a pair for each of them."""
    torch.manual_seed(4)
    hidden, inner, r = 32, 16 if "gate_proj" in layers else 48, config.get("r", 4)
    tensors: dict[str, torch.Tensor] = {}
    for layer in range(2):
        for name in ("q_proj", "v_proj"):
            width = 32 if name == "q_proj" else 16
            key = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors |= {f"{key}.lora_A.weight": torch.randn(r, 32), f"{key}.lora_B.weight": torch.randn(width, r)}
        for expert in range(4):
            for name in layers:
                k, n = (inner, hidden) if name == layers[1] else (hidden, inner)
                key = f"base_model.model.model.layers.{layer}.{prefix}.experts.{expert}.{name}"
                tensors |= {f"{key}.lora_A.weight": torch.randn(r, k), f"{key}.lora_B.weight": torch.randn(n, r)}
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: 0.15 * tensor for key, tensor in tensors.items()}, folder / "adapter_model.safetensors")
    written = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": r, "lora_alpha": 8, "bias": "none"}
    targets = {"target_modules": ["q_proj", "v_proj", *layers], "base_model_name_or_path": str(model)}
    (folder / "adapter_config.json").write_text(json.dumps(written | targets | config))
    return folder


def write(name: str, model: Path, folder: Path) -> dict[str, Path]:
    """Writes adapters of every shape that PEFT gives those on mixtures."""
    if name == "gptoss":
        return {
            "both": saved(model, folder / "both", target_modules=["q_proj"], target_parameters=STACKED),
            "down": saved(model, folder / "down", 2, target_modules=[], target_parameters=["experts.down_proj"], r=20),
        }
    kinds = {
        "seven": saved(model, folder / "seven", target_modules=SEVEN)
        if name == "qwen"
        else saved(model, folder / "seven", target_modules=["q_proj", "w1", "w2", "w3"]),
        "everything": saved(model, folder / "everything", 2, target_modules="all-linear", r=3, use_rslora=True),
        "stacked": saved(model, folder / "stacked", 3, target_modules=["v_proj"], target_parameters=STACKED, r=20),
        "one": saved(model, folder / "one", 4, target_modules=[], target_parameters=["experts.gate_up_proj"]),
        "router": saved(model, folder / "router", 5, target_modules=["q_proj"], target_parameters=["gate.weight"]),
    }
    layers = ("gate_proj", "down_proj", "up_proj") if name == "qwen" else ("w1", "w2", "w3")
    prefix = "mlp" if name == "qwen" else "block_sparse_moe"
    return kinds | {"older": singly(model, folder / "older", prefix=prefix, layers=layers)}


@pytest.mark.parametrize("name", MODELS)
def test_each_row_of_a_mixed_batch_gets_its_own_experts(name: str, models: Mapping[str, Path], tmp_path: Path) -> None:
    model = models[name]
    folders = write(name, model, tmp_path)
    with running(model, end_tokens=()) as harness:
        live = {kind: harness.load(kind, folder) for kind, folder in folders.items()}
        wanted = [(kind, strength) for kind in live for strength in (1.0, -0.5)] + [("", 0.0)]
        jobs = []
        for number, (kind, strength) in enumerate(wanted):
            prompt = [40 + (7 * number + i) % 60 for i in range(5 + number)]
            jobs.append(Job(prompt, 3, {live[kind]: strength} if kind else {}, GREEDY))
        answers = harness.tokens(jobs)
        for job, answer, (kind, strength) in zip(jobs, answers, wanted, strict=True):
            sequence = [*job.prompt, *(token.id for token in answer)][:-1]
            served = torch.stack(harness.logits[tuple(job.prompt)])
            expected = truth(model, folders.get(kind), strength, sequence)[len(job.prompt) - 1 :]
            assert (served - expected).abs().max() <= TOLERANCE, kind
            if kind:
                assert (served - truth(model, None, 0, sequence)[len(job.prompt) - 1 :]).abs().max() > 10 * TOLERANCE


@pytest.mark.parametrize("paged", [False, True])
def test_rows_without_adapters_keep_the_bits_of_the_model_and_sums_are_sums(
    paged: bool, models: Mapping[str, Path], tmp_path: Path
) -> None:
    model = models["qwen"]
    one = saved(model, tmp_path / "one", target_modules=SEVEN)
    two = saved(model, tmp_path / "two", 2, target_modules=["q_proj"], target_parameters=[*STACKED, "gate.weight"], r=9)
    ours, plain = load_fp32(model), load_fp32(model)
    lora = inject_lora(ours, paged=paged)
    first, second = (lora.bank.load(read_adapter(folder, ours, name="a")) for folder in (one, two))
    x = torch.randn(9, 32)
    lora.routing.set([(4, {first: 0.0}), (2, {first: 0.5}), (3, {first: 0.5, second: 0.25})])
    for layer in (0, 1):
        with torch.no_grad():
            served, base = (m.model.layers[layer].mlp(x[None])[0] for m in (ours, plain))
        assert torch.equal(served[:4], base[:4])
        assert (served[4:] - base[4:]).abs().max() > 1e-3
    # Twice the same adapter at half its strength each is the adapter.
    again = lora.bank.load(read_adapter(two, ours, name="b"))
    ids = torch.arange(40, 49)[None]
    logits = []
    for strengths in ({second: 1.0}, {second: 0.5, again: 0.5}):
        lora.routing.set([(9, strengths)])
        with torch.no_grad():
            logits.append(ours(ids).logits)
    assert (logits[0] - logits[1]).abs().max() <= TOLERANCE
    assert (logits[0][0] - truth(model, two, 1.0, ids[0].tolist())).abs().max() <= TOLERANCE


def test_pages_are_planned_without_experts(models: Mapping[str, Path]) -> None:
    """Else a large mixture would have no room for adapters on its attention."""
    lora = inject_lora(load_fp32(models["qwen"]))
    stacked = [layer.page_bytes for path, layer in lora.layers.items() if ".experts." in path]
    assert len(stacked) == 4
    assert lora.page_bytes == sum(layer.page_bytes for layer in lora.layers.values()) - sum(stacked)


def test_matrices_of_an_older_orientation_are_turned(models: Mapping[str, Path], tmp_path: Path) -> None:
    """PEFT once took the weights of experts to be [K, N]: A and B have changed places."""
    model = load_fp32(models["qwen"])
    folder = saved(models["qwen"], tmp_path / "a", target_modules=[], target_parameters=["experts.down_proj"])
    want = read_adapter(folder, model, name="a").matrices
    tensors = load_file(folder / "adapter_model.safetensors")
    turned = {}
    for key, tensor in tensors.items():
        if "lora_A" in key:  # [E*r, K] to [K, r*E]
            turned[key.replace("lora_A", "lora_B")] = (
                tensor.view(4, 4, -1).permute(2, 1, 0).reshape(-1, 16).contiguous()
            )
        else:  # [N, r*E] to [E*r, N]
            turned[key.replace("lora_B", "lora_A")] = (
                tensor.view(-1, 4, 4).permute(2, 1, 0).reshape(16, -1).contiguous()
            )
    save_file({key: tensor.contiguous() for key, tensor in turned.items()}, folder / "adapter_model.safetensors")
    got = read_adapter(folder, model, name="a").matrices
    for path, matrix in want.items():
        for mine, other in ((matrix.a, got[path].a), (matrix.b, got[path].b)):
            assert torch.equal(mine, other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_rslora": True}, "experts.0.down_proj', an expert of a mixture, and use_rslora is set"),
        ({"r": 5}, "lora_A of 'model.layers.0.mlp.experts.0.down_proj' has shape [4, 16], but rank 5"),
        ({"rank_pattern": {"experts.0.gate_proj": 5}}, "lora_A of 'model.layers.0.mlp.experts.0.gate_proj' has shape"),
        (
            {"target_modules": ["q_proj", "v_proj"]},
            "tensors for 'model.layers.0.mlp.experts.0.down_proj', which target",
        ),
        ({"target_modules": [*SEVEN, "gate"]}, "target_modules includes 'model.layers.0.mlp.gate', but"),
    ],
)
def test_what_experts_cannot_be_is_refused(
    change: Mapping[str, Any], words: str, models: Mapping[str, Path], tmp_path: Path
) -> None:
    folder = singly(models["qwen"], tmp_path / "a", prefix="mlp", layers=("gate_proj", "down_proj", "up_proj"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | dict(change)))
    with pytest.raises(AdapterLoadError) as refusal:
        read_adapter(folder, load_fp32(models["qwen"]), name="a")
    assert words in refusal.value.reason


def test_experts_of_another_model_are_named(models: Mapping[str, Path], tmp_path: Path, tiny_llama: Path) -> None:
    folder = singly(models["qwen"], tmp_path / "a", prefix="mlp", layers=("gate_proj", "down_proj", "up_proj"))
    with pytest.raises(AdapterLoadError, match="an expert of a mixture, but the base model has no such expert"):
        read_adapter(folder, load_fp32(tiny_llama), name="a")
    shutil.rmtree(folder)
    stacked = saved(models["qwen"], folder, target_modules=[], target_parameters=STACKED)
    with pytest.raises(AdapterLoadError, match="expert"):
        read_adapter(stacked, load_fp32(tiny_llama), name="a")
