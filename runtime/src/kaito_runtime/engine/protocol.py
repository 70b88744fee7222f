"""The engine as the HTTP side sees it: jobs, tokens, statistics. `torch_engine` has the engine over transformers.

Nothing here imports torch, so the HTTP side and its tests run without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from kaito_runtime.lora.records import AdapterVersion

__all__ = [
    "GREEDY_BELOW",
    "MOST_LOGPROBS",
    "NO_DEFAULTS",
    "Bans",
    "Engine",
    "EngineStats",
    "FinishReason",
    "Grammar",
    "Job",
    "PromptScores",
    "PromptToken",
    "Sampling",
    "Token",
    "TokenStream",
]

GREEDY_BELOW = 1e-5
"""Temperature below which the most likely token is taken, as in vLLM: a draw would hardly ever give another."""
MOST_LOGPROBS = 20
"""Most alternatives to a token whose log-probabilities are returned."""
FinishReason = Literal["stop", "length"]


class Grammar(Protocol):
    """State of one sequence that must follow a grammar: which tokens may come next."""

    def start(self) -> Grammar:
        """Returns the first state, for another sequence."""

    def allowed(self) -> bytes:
        """Returns a bit per token, 0 where it must not come next; token `t` is bit `t % 8` of byte `t // 8`."""

    def push(self, token: int) -> None:
        """Adds a token."""

    @property
    def stuck(self) -> str:
        """Why no token can come next although the answer is not complete; "" where one can."""


class Bans(Protocol):
    """State of one sequence that must not have certain texts: which tokens would complete one of them."""

    def start(self) -> Bans:
        """Returns the first state, for another sequence."""

    def banned(self) -> Iterable[int]:
        """Returns the tokens that must not come next, each once."""

    def push(self, token: int) -> None:
        """Adds a token."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen from the logits. What changes logits is applied in the order of the attributes.

    Attributes:
        logit_bias: Added to the logits, by token.
        min_tokens: Fewest tokens of the answer, the one that ends it not counted; until then no end may come, unless a
            grammar allows nothing else.
        bans: First state of what the answer must not have; None for nothing.
        repetition_penalty: Divides a positive logit and multiplies a negative one, of each token that the prompt or the
            answer has already.
        presence_penalty: Subtracted from the logit of each token that the answer has already.
        frequency_penalty: Subtracted too, once for each time that the answer has the token.
        grammar: First state of the grammar that the answer must follow; None for any text.
        temperature: Divides the logits. Below `GREEDY_BELOW`, the most likely token is taken.
        top_k: Number of tokens that are kept, and those as likely as the last of them; 0 keeps all.
        top_p: Smallest probability mass that is kept, in (0, 1].
        min_p: Probability, relative to the most likely token's, below which tokens are dropped.
        seed: Makes the choices reproducible, alone and in any batch; None draws a seed.
        logprobs: Number of alternatives whose log-probabilities are returned, at most `MOST_LOGPROBS`; None for no
            log-probabilities.
    """

    logit_bias: Mapping[int, float] = field(default_factory=dict)
    min_tokens: int = 0
    bans: Bans | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    grammar: Grammar | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    logprobs: int | None = None

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken instead of a drawn one."""
        return self.temperature < GREEDY_BELOW


NO_DEFAULTS = Sampling()
"""What a request gets that says nothing, where the model's maker says nothing either."""


@dataclass(frozen=True, slots=True)
class Job:
    """One sequence to continue.

    Attributes:
        prompt: Token ids.
        max_tokens: Most tokens to generate; 0 computes the prompt alone.
        strengths: Adapter versions to apply, each with its strength, without zeros.
        sampling: How tokens are chosen.
        ignores_end: Whether it goes on after an end-of-sequence token, as benchmarks need it.
        prompt_logprobs: Number of alternatives whose log-probabilities are returned for each token of the prompt, see
            `TokenStream.prompt`; None for no log-probabilities of the prompt.
        stop_tokens: Tokens that end it besides the model's own; also where it ignores those.
    """

    prompt: Sequence[int]
    max_tokens: int
    strengths: Mapping[AdapterVersion, float] = field(default_factory=dict)
    sampling: Sampling = NO_DEFAULTS
    ignores_end: bool = False
    prompt_logprobs: int | None = None
    stop_tokens: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token.

    Attributes:
        finish: Why the sequence ends with this token; None where it goes on. With "stop" it is an end token.
        logprob: Natural logarithm of its probability under the unmodified logits, if requested.
        top: The most likely tokens with their log-probabilities, if requested.
        cached: Tokens of the job's prompt that were found computed; the same for all tokens of a job.
    """

    id: int
    finish: FinishReason | None = None
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
    cached: int = 0


@dataclass(frozen=True, slots=True)
class PromptToken:
    """One token of a prompt.

    Attributes:
        logprob: Natural logarithm of its probability after the tokens before it, under the unmodified logits; None for
            the first token.
        top: The most likely tokens in its place with their log-probabilities, as many as were requested.
    """

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class PromptScores:
    """The prompt of a job is computed; comes before its first token.

    Attributes:
        tokens: The prompt's tokens; empty if `Job.prompt_logprobs` is None.
        finish: "length" where no token follows, since `Job.max_tokens` is 0.
    """

    tokens: tuple[PromptToken, ...]
    finish: FinishReason | None = None


class TokenStream:
    """The tokens of one job, as they come. Belongs to the event loop's thread.

    Attributes:
        prompt: The prompt's tokens with their log-probabilities, if `Job.prompt_logprobs` asks for them; empty until
            the first token has come, or the stream has ended.
    """

    def __init__(self, cancel: Callable[[], None]) -> None:
        self.prompt: tuple[PromptToken, ...] = ()
        self._cancel = cancel
        self._events: asyncio.Queue[Token | PromptScores | Exception] = asyncio.Queue()
        self._over = False

    def put(self, event: Token | PromptScores | Exception) -> None:
        """Adds a token, the prompt's log-probabilities, or the error that ends the stream."""
        self._events.put_nowait(event)

    def cancel(self) -> None:
        """Ends the job, since nobody reads on. Does nothing after the last token."""
        if not self._over:
            self._over = True
            self._cancel()

    def fail(self, error: Exception) -> None:
        """Ends the job and, after the tokens that are there, the stream with an error. Nothing after the last token."""
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
        while not self._over:
            event = await self._events.get()
            if isinstance(event, Exception):
                self._over = True
                raise event
            self._over = event.finish is not None
            if isinstance(event, Token):
                return event
            self.prompt = event.tokens
        raise StopAsyncIteration


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Figures of one moment, for metrics and health.

    Attributes:
        running: Jobs in the batch.
        waiting: Jobs that wait for a place in it.
        cache_use: Share of the key-value cache that is in use, in [0, 1].
        passes: Forward passes that succeeded since the start.
        failures: Forward passes that failed. A request that fails alone does not count.
        failures_in_a_row: Forward passes that failed since the last one that succeeded.
        running_adapters: Names of the adapters in the batch.
        waiting_adapters: Names of the adapters of waiting jobs.
        resident_bytes: Memory that each resident adapter takes, by name.
        prefix_tokens: (prompt tokens, those of them that were found computed); 0 where prefixes are not reused.
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
    """Continues sequences, many at a time. Belongs to the event loop's thread."""

    @property
    def context_length(self) -> int:
        """Longest sequence in tokens, prompt and answer together."""

    @property
    def vocabulary_size(self) -> int:
        """Number of token ids."""

    @property
    def default_sampling(self) -> Sampling:
        """What a request gets that says nothing about how tokens are chosen."""

    @property
    def most_jobs(self) -> int:
        """Most jobs at a time, running and waiting."""

    @property
    def alive(self) -> bool:
        """Whether it can take jobs."""

    @property
    def lost(self) -> str:
        """Why it can compute nothing until the process is restarted; "" if it can."""

    def submit(self, job: Job) -> TokenStream:
        """Queues a job. Its adapter versions stay loaded until it ends.

        Raises:
            RequestError: The queue is full (429) or the engine has stopped (503).
        """

    async def load_adapter(self, name: str, path: Path, digest: str | None) -> AdapterVersion:
        """Reads an adapter's folder and makes it resident.

        Raises:
            AdapterLoadError: It cannot be applied exactly, or does not fit.
        """

    def retire_adapter(self, version: AdapterVersion) -> None:
        """Unloads a version as soon as the jobs that have it, all submitted before, have ended."""

    def stats(self) -> EngineStats:
        """Returns the figures of this moment."""
