"""What adapters cost on a CPU: this runtime against the base model and against PEFT, on SmolLM2's shape.

Whole models with random weights, one thread, CPU time of the thread (other work on the machine disturbs it little), all
variants in shuffled order in every repetition, medians. Ours includes `Routing.set`, as every step of the server does.
Each number of adapters has its own model, as PEFT's have, so that all its steps have the same strengths, as in a
server's decode. "ours" computes with the weights as torch lays them out, as the base model and PEFT do; "packed" is
what the server does on a CPU if memory is free: copies of the weights, laid out for their products. Prints ratios
beside goals, not verdicts.

    python runtime/bench/bench_kernels.py [--layers 12 30] [--repetitions 21]
"""

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from kaito_runtime.lora.inject import LoraModel, inject_lora
from kaito_runtime.lora.records import AdapterVersion, AdapterWeights, LoraMatrix

RANK, ALPHA, STRENGTHS = 16, 32, (0.8, 0.5, -0.3, 1.2)
COUNTS = (1, 2, 4)
SHAPES = {"decode, batch 1": (1, 1), "decode, batch 8": (8, 1), "prefill 64": (1, 64)}
# (ours / base, ours / PEFT) for 1, 2 and 4 adapters; measured once on another machine, with 5% to spare.
GOALS = {
    "decode, batch 1": ((1.12, 0.93), (1.18, 0.86), (1.22, 0.75)),
    "decode, batch 8": ((1.10, 0.97), (1.13, 0.95), (1.15, 0.87)),
    "prefill 64": ((1.12, 0.97), (1.16, 0.92), (1.22, 0.83)),
}
PACKED_GOALS = {("decode, batch 8", 2): 0.75, ("prefill 64", 2): 1.00}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[12, 30])
    parser.add_argument("--repetitions", type=int, default=21)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"torch {torch.__version__}, 1 thread, thread CPU time, medians of {arguments.repetitions}, rank {RANK}, fp32"
    )
    for layers in arguments.layers:
        with torch.inference_mode():
            bench(layers, arguments.repetitions)


def bench(layers: int, repetitions: int) -> None:
    base = smollm2(layers)
    parts = [adapter(base, seed) for seed in range(max(COUNTS))]
    ours = {n: injected(base, parts[:n], pack=False) for n in COUNTS}
    packed = {n: injected(base, parts[:n], pack=True) for n in COUNTS}
    pefts = {n: with_peft(base, parts[:n]) for n in COUNTS}
    print(f"\n{layers} layers, {sum(p.numel() for p in base.parameters()) / 1e6:.0f} M parameters")
    print(
        f"{'':16}  n  base ms   ours/base (goal)   ours/PEFT (goal)   packed/base (goal)   packed/PEFT   PEFT/base"
        "   largest difference to PEFT"
    )
    for name, (batch, tokens) in SHAPES.items():
        ids = torch.randint(0, 49152, (batch, tokens), generator=torch.Generator().manual_seed(1))
        variants: dict[str, Callable[[], Tensor]] = {"base": lambda ids=ids: forward(base, ids)}
        for n in COUNTS:
            variants[f"ours {n}"] = serve(*ours[n], ids)
            variants[f"packed {n}"] = serve(*packed[n], ids)
            variants[f"peft {n}"] = lambda ids=ids, n=n: forward(pefts[n], ids)
        off = {n: (variants[f"ours {n}"]() - variants[f"peft {n}"]()).abs().max().item() for n in COUNTS}
        took = measure(variants, repetitions)
        for n, (to_base, to_peft) in zip(COUNTS, GOALS[name], strict=True):
            base_took, mine, fast, theirs = (took[key] for key in ("base", f"ours {n}", f"packed {n}", f"peft {n}"))
            goal = f"({PACKED_GOALS[name, n]:.2f})" if (name, n) in PACKED_GOALS else ""
            print(
                f"{name:16}  {n}  {base_took * 1e3:7.1f}   {mine / base_took:9.3f} ({to_base:.2f})   "
                f"{mine / theirs:9.3f} ({to_peft:.2f})   {fast / base_took:11.3f} {goal:6}   {fast / theirs:11.3f}   "
                f"{theirs / base_took:9.3f}   {off[n]:.1e}"
            )
    change_of_strength(*ours[max(COUNTS)][1:])


def change_of_strength(lora: LoraModel, versions: list[AdapterVersion]) -> None:
    scalings = next(iter(lora.layers.values())).scalings
    took = []
    for i in range(200):
        start = time.perf_counter()
        lora.routing.set([(8, {version: 0.1 + i / 100 for version in versions})])
        assert lora.routing.step is not None
        lora.routing.step.work(scalings)  # type: ignore[attr-defined]
        took.append(time.perf_counter() - start)
    print(f"change of all strengths of the model: {statistics.median(took) * 1e6:.0f} us (goal: under 1000)")


def smollm2(layers: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def shared_copy(model: nn.Module) -> nn.Module:
    """Another model over the same weights."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def adapter(model: nn.Module, seed: int) -> AdapterWeights:
    generator = torch.Generator().manual_seed(seed)
    matrices = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and path != "lm_head":
            a = torch.randn(RANK, module.in_features, generator=generator) * 0.01
            b = torch.randn(module.out_features, RANK, generator=generator) * 0.01
            matrices[path] = LoraMatrix(a, b, ALPHA / RANK)
    return AdapterWeights(f"a{seed}", f"sha256:{seed}", matrices)


def injected(
    base: nn.Module, parts: list[AdapterWeights], *, pack: bool
) -> tuple[nn.Module, LoraModel, list[AdapterVersion]]:
    model = shared_copy(base)
    lora = inject_lora(model, pack=pack)
    return model, lora, [lora.bank.load(part) for part in parts]


def serve(model: nn.Module, lora: LoraModel, versions: list[AdapterVersion], ids: Tensor) -> Callable[[], Tensor]:
    strengths = dict(zip(versions, STRENGTHS, strict=False))

    def run() -> Tensor:
        lora.routing.set([(ids.numel(), strengths)])
        return forward(model, ids)

    return run


def with_peft(base: nn.Module, parts: list[AdapterWeights]) -> PeftModel:
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear")
    model = get_peft_model(shared_copy(base), config, adapter_name="a0").eval()
    for part in parts[1:]:
        model.add_adapter(part.name, copy.deepcopy(config))
    names = [part.name for part in parts]
    for path, matrix in ((path, part) for part in parts for path in part.matrices.items()):
        module = model.base_model.model.get_submodule(path[0])
        module.lora_A[matrix.name].weight.data = path[1].a
        module.lora_B[matrix.name].weight.data = path[1].b
    model.base_model.set_adapter(names)
    for module in model.modules():
        if hasattr(module, "set_scale"):
            for name, strength in zip(names, STRENGTHS, strict=False):
                module.set_scale(name, strength)
    return model


def forward(model: nn.Module, ids: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def measure(variants: dict[str, Callable[[], Tensor]], repetitions: int) -> dict[str, float]:
    took: dict[str, list[float]] = {name: [] for name in variants}
    for run in variants.values():
        run()
    names = list(variants)
    for _ in range(repetitions):
        random.shuffle(names)
        for name in names:
            start = time.thread_time()
            variants[name]()
            took[name].append(time.thread_time() - start)
    return {name: statistics.median(times) for name, times in took.items()}


if __name__ == "__main__":
    main()
