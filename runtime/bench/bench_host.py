"""The host's share of a decode step: Python and calls beyond what the plain model's forward pass takes.

A model of 32 layers is so narrow that its products take hardly any time; what is left is what a GPU would wait for.
Every system computes one token for each of N sequences, on one thread:

- plain: transformers' own model, without a cache;
- base: the engine's step (schedule, lay out, attend over the paged cache, choose), no adapter;
- adapters: the same, every sequence with a strength of its own for one adapter on all linear layers.

Prints medians in milliseconds of the thread's CPU time, which other work on the machine disturbs little; the systems
take turns.

    python runtime/bench/bench_host.py [--batches 1 8 64] [--repetitions 30]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from kaito_runtime.engine.runner import Runner
from kaito_runtime.formats.files import read_adapter
from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.lora.records import AdapterVersion
from kaito_runtime.model.memory import BatchLimits
from kaito_runtime.testing.models import save_adapter

LAYERS = 32
PROMPT = 16
MOST = 64  # sequences
WARM, TURN = 3, 10  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--repetitions", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    runner, version = served()
    plain = model()
    print(f"torch {torch.__version__}, 1 thread, {LAYERS} layers, median milliseconds of CPU time a step")
    print("batch   plain    base  beyond plain  adapters  beyond base")
    for batch in arguments.batches:
        mixes = [{version: 0.5 + i / 100} for i in range(batch)]
        systems = (Plain(plain, batch), Served(runner, [{}] * batch), Served(runner, mixes))
        alone, base, adapted = in_turns(systems, arguments.repetitions)
        print(f"{batch:5} {alone:7.2f} {base:7.2f} {base - alone:13.2f} {adapted:9.2f} {adapted - base:12.2f}")


def model() -> LlamaForCausalLM:
    """Returns a model whose products take hardly any time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


def served() -> tuple[Runner, AdapterVersion]:
    """Returns what computes the model, with an adapter."""
    wrapped = model()
    lora = inject_lora(wrapped)
    runner = Runner(wrapped, lora, BatchLimits(cache_tokens=2 * MOST * 512, requests=2 * MOST))
    with tempfile.TemporaryDirectory() as scratch:
        folder = save_adapter(model(), Path(scratch) / "a", seed=1, r=8, lora_alpha=8, target_modules="all-linear")
        return runner, runner.load(read_adapter(folder, wrapped, name="a"))


class Plain:
    """transformers' own step over one token of each sequence."""

    def __init__(self, plain: LlamaForCausalLM, batch: int) -> None:
        self._model = plain
        self._ids = torch.ones(batch, 1, dtype=torch.long)

    def start(self) -> None:
        """Has nothing to start."""

    def step(self) -> None:
        with torch.inference_mode():
            self._model(input_ids=self._ids, use_cache=False).logits[:, -1].argmax(-1).tolist()

    def end(self) -> None:
        """Has nothing to end."""


class Served:
    """The engine's step over sequences that are there between `start` and `end`."""

    def __init__(self, runner: Runner, strengths: Sequence[Mapping[AdapterVersion, float]]) -> None:
        self._runner = runner
        self._strengths = {f"{i}": each for i, each in enumerate(strengths)}

    def start(self) -> None:
        for i, (name, strengths) in enumerate(self._strengths.items()):
            self._runner.add(name, [1 + i] * PROMPT, 1 << 20, (), strengths)
        while any(row.tokens > 1 for row in self._runner.prepare()):
            self.step()

    def step(self) -> None:
        self._runner.prepare()
        self._runner.step(most_likely)

    def end(self) -> None:
        self._runner.drop(list(self._strengths))


def most_likely(request_ids: Sequence[str], logits: Tensor) -> list[int]:
    """Chooses the tokens of a step."""
    tokens: list[int] = logits.argmax(-1).tolist()
    return tokens


def in_turns(systems: Sequence[Plain | Served], repetitions: int) -> list[float]:
    """Returns the median milliseconds of each, which take turns of a few steps."""
    took: list[list[float]] = [[] for _ in systems]
    while len(took[0]) < repetitions:
        for system, times in zip(systems, took, strict=True):
            system.start()
            for number in range(WARM + TURN):
                started = time.thread_time()
                system.step()
                if number >= WARM:
                    times.append((time.thread_time() - started) * 1e3)
            system.end()
    return [statistics.median(times) for times in took]


if __name__ == "__main__":
    main()
