"""Engine: what owns the model, as the HTTP layer sees it. The one over transformers is `torch_engine`'s.

Nothing here imports torch, so the HTTP layer and its tests run without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from kaito_runtime.lora.records import AdapterVersion

__all__ = [
    "GREEDY_BELOW",
    "Engine",
    "EngineStats",
    "FinishReason",
    "Grammar",
    "Job",
    "Sampling",
    "TextCodec",
    "Token",
    "TokenStream",
]

GREEDY_BELOW = 1e-5
"""Temperature below which the most likely token is taken, as vLLM does: a draw could hardly give another."""
FinishReason = Literal["stop", "length"]


class Grammar(Protocol):
    """Which tokens an answer may be made of, at one point of it."""

    def start(self) -> Grammar:
        """Returns the beginning, for one more sequence."""

    def allowed(self) -> bytes:
        """Returns a byte per token, 0 where it may not come next."""

    def push(self, token: int) -> None:
        """Goes on by one token."""

    @property
    def stuck(self) -> str:
        """Why the answer cannot go on although it is not complete, or ""."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen from the logits.

    Attributes:
        temperature: Below `GREEDY_BELOW`, the most likely token is taken.
        top_p: Smallest probability mass that is kept, in (0, 1].
        top_k: Number of tokens that are kept; 0 keeps all.
        min_p: Probability, relative to the most likely token's, below which tokens are dropped.
        seed: Makes the choice reproducible; None draws one.
        presence_penalty: Subtracted from the logits of tokens that were generated already.
        frequency_penalty: The same, times how often.
        logit_bias: Added to the logits, by token.
        logprobs: None for no log-probabilities, else how many alternatives to the chosen token are returned.
        grammar: What the answer is made of, if that is limited.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    logprobs: int | None = None
    grammar: Grammar | None = None

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken instead of a drawn one."""
        return self.temperature < GREEDY_BELOW


@dataclass(frozen=True, slots=True)
class Job:
    """One sequence to continue.

    Attributes:
        prompt: Token ids.
        max_tokens: Most tokens to generate.
        strengths: Adapter versions to apply, each at its strength, without zeros.
        sampling: How tokens are chosen.
        ignores_end: Whether it goes on after an end-of-sequence token, as benchmarks want it.
    """

    prompt: Sequence[int]
    max_tokens: int
    strengths: Mapping[AdapterVersion, float] = field(default_factory=dict)
    sampling: Sampling = Sampling()
    ignores_end: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token.

    Attributes:
        finish: Why the sequence ends here, or None where it goes on. With "stop" it is an end-of-sequence token.
        logprob: Natural logarithm of its probability under the unmodified logits, where it was asked for.
        top: The most likely tokens with their log-probabilities, where they were asked for.
        cached: Tokens of the job's prompt that were found computed, the same with each of its tokens.
    """

    id: int
    finish: FinishReason | None = None
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    cached: int = 0


class TokenStream:
    """The tokens of one job, as they come. Belongs to the event loop's thread."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._events: asyncio.Queue[Token | Exception] = asyncio.Queue()
        self._over = False

    def put(self, event: Token | Exception) -> None:
        """Adds the next token, or the error that ends the stream."""
        self._events.put_nowait(event)

    def cancel(self) -> None:
        """Tells the engine that nobody reads on. Does nothing after the last token."""
        if not self._over:
            self._over = True
            self._cancel()

    def fail(self, error: Exception) -> None:
        """Ends the stream with an error after what it holds already, and tells the engine. Not after the last token."""
        if not self._over:
            self.put(error)
            self._cancel()

    def __aiter__(self) -> TokenStream:
        return self

    async def __anext__(self) -> Token:
        """Returns the next token.

        Raises:
            ServeError: The engine failed this job.
        """
        if self._over:
            raise StopAsyncIteration
        event = await self._events.get()
        if isinstance(event, Exception):
            self._over = True
            raise event
        self._over = event.finish is not None
        return event


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot for metrics and health.

    Attributes:
        running: Jobs that are in the batch.
        waiting: Jobs that are not yet.
        cache_use: Share of the key-value cache that is taken, in [0, 1].
        passes: Forward passes since the start.
        failures: Those that raised.
        failures_in_a_row: Those that raised since the last one that did not. A request that fails alone is not counted.
        running_adapters: Names of the adapters in the batch.
        waiting_adapters: Names of the adapters of waiting jobs.
        resident_bytes: Memory that each resident adapter takes, by name.
        prefix_tokens: Tokens of all prompts, and those of them that were found computed; 0 where none are kept.
    """

    running: int = 0
    waiting: int = 0
    cache_use: float = 0.0
    passes: int = 0
    failures: int = 0
    failures_in_a_row: int = 0
    running_adapters: tuple[str, ...] = ()
    waiting_adapters: tuple[str, ...] = ()
    resident_bytes: Mapping[str, int] = field(default_factory=dict)
    prefix_tokens: tuple[int, int] = (0, 0)


class Engine(Protocol):
    """Continues sequences, many at a time. Called from the event loop's thread alone."""

    @property
    def context_length(self) -> int:
        """Longest sequence in tokens, prompt and answer together."""

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""

    @property
    def most_jobs(self) -> int:
        """Most jobs that it holds at once, running and waiting."""

    @property
    def alive(self) -> bool:
        """Whether it can take jobs."""

    @property
    def lost(self) -> str:
        """Why it can compute nothing any more before the process is started anew, or ""."""

    def submit(self, job: Job) -> TokenStream:
        """Queues a job; its adapter versions stay as they are until it has ended.

        Raises:
            RequestError: The queue is full (429) or the engine has stopped (503).
        """

    async def load_adapter(self, name: str, path: Path, digest: str | None) -> AdapterVersion:
        """Reads an adapter's folder and makes it resident.

        Raises:
            AdapterLoadError: It cannot be applied exactly, or does not fit.
        """

    def retire_adapter(self, version: AdapterVersion) -> None:
        """Unloads a version as soon as the jobs that were submitted before have ended."""

    def stats(self) -> EngineStats:
        """Returns a snapshot."""


class TextCodec(Protocol):
    """Turns text into tokens and back."""

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of a plain prompt, with what the model wants in front."""

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the tokens of a conversation, ready for the assistant's turn.

        Raises:
            RequestError: The model has no chat template, or it refuses these messages (400).
        """

    def grammar(self, schema: Mapping[str, Any]) -> Grammar:
        """Returns what answers that follow a JSON schema are made of. May take a second; any thread may call it.

        Raises:
            RequestError: The schema is wrong, or this model's answers cannot be limited (400).
        """

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without special ones; "\ufffd" stands for incomplete characters."""
