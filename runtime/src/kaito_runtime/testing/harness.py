"""A real engine behind plain function calls; its event loop runs in a thread of its own. For tests only.

with running(folder) as harness:
    version = harness.load("pirate", adapter_folder)
    tokens = harness.answer([1, 2, 3], {version: 0.8})
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from anyio.from_thread import BlockingPortal, start_blocking_portal

from kaito_runtime.engine.protocol import Job, Sampling, Token
from kaito_runtime.engine.runner import Runner
from kaito_runtime.engine.torch_engine import TorchEngine
from kaito_runtime.lora.inject import inject_lora
from kaito_runtime.lora.records import AdapterVersion
from kaito_runtime.model.load import LoadedModel, load_model
from kaito_runtime.model.memory import BatchLimits

__all__ = ["GREEDY", "LIMITS", "Harness", "running"]

GREEDY = Sampling(temperature=0)
LIMITS = BatchLimits(cache_tokens=2048, page_tokens=8, step_tokens=64, requests=32)


class Harness:
    """Drives one engine. `running` makes it.

    Attributes:
        loaded: The model, with its tokenizer and recipe.
        lora: The bank and the routing of its LoRA layers.
        logits: By prompt, the logits that each token of its answer was chosen from (`[V]` float32).
    """

    def __init__(self, portal: BlockingPortal, loaded: LoadedModel, limits: BatchLimits, **options: Any) -> None:
        self.loaded = loaded
        self.logits: dict[tuple[int, ...], list[torch.Tensor]] = {}
        self.lora = inject_lora(loaded.model, exclude=loaded.recipe.lora_exclude)
        self.engine = TorchEngine(
            loaded.model,
            Runner(loaded.model, self.lora, limits),
            end_tokens=options.pop("end_tokens", loaded.end_tokens),
            context_length=loaded.context_length,
            watch_logits=self._watch,
            **options,
        )
        self.portal = portal

    def _watch(self, prompts: Sequence[Sequence[int]], logits: torch.Tensor) -> None:
        for prompt, row in zip(prompts, logits, strict=True):
            self.logits.setdefault(tuple(prompt), []).append(row.clone())

    def load(self, name: str, path: Path) -> AdapterVersion:
        """Loads the adapter in a folder.

        Raises:
            AdapterLoadError: It cannot be applied exactly.
        """
        return self.portal.call(self.engine.load_adapter, name, path, None)

    def tokens(self, jobs: Sequence[Job]) -> list[list[Token]]:
        """Runs jobs concurrently and returns the tokens of each."""

        async def run() -> list[list[Token]]:
            streams = [self.engine.submit(job) for job in jobs]

            async def drain(stream: Any) -> list[Token]:
                return [token async for token in stream]

            return list(await asyncio.gather(*(drain(stream) for stream in streams)))

        return self.portal.call(run)

    def answer(self, prompt: Sequence[int], strengths: Mapping[Any, float], max_tokens: int = 6) -> list[int]:
        """Returns the greedy continuation of one prompt."""
        return [token.id for token in self.tokens([Job(prompt, max_tokens, strengths, GREEDY)])[0]]


@contextmanager
def running(model: Path, limits: BatchLimits = LIMITS, **options: Any) -> Iterator[Harness]:
    """Yields a started engine in float32, and stops it afterwards.

    Args:
        model: Folder or GGUF file.
        limits: Sizes of the engine's batches.
        options: Passed to `TorchEngine`; with `end_tokens=()` every answer reaches its full length.
    """
    with start_blocking_portal() as portal:
        harness = Harness(portal, load_model(model, dtype="float32"), limits, **options)
        portal.call(_start, harness.engine)
        try:
            yield harness
        finally:
            portal.call(harness.engine.stop)


async def _start(engine: TorchEngine) -> None:
    engine.start()
