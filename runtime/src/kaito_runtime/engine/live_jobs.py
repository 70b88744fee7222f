"""Jobs that the engine is computing: the stream, sampler and outcome of each. All in the worker's thread."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from kaito_runtime.engine.batching import Row
from kaito_runtime.engine.prompt_scores import score_tokens
from kaito_runtime.engine.protocol import Job, PromptScores, PromptToken, Token, TokenStream
from kaito_runtime.engine.sampling import Choice, Sampler, choose
from kaito_runtime.errors import RequestError, one_line

__all__ = ["Event", "LiveJob", "LiveJobs"]

log = logging.getLogger(__name__)

Event = tuple[TokenStream, Token | PromptScores | Exception]
"""What to put into a stream: its prompt, its next token, or the error that ends it."""
_NO_TOKEN = 0  # given to the batch, on all ranks, for a row that fails; no client sees it


@dataclass(slots=True)
class LiveJob:
    """A job in the engine.

    Attributes:
        ends: Tokens that end it.
        cached: Prompt tokens that were found computed; None before its first pass.
        prompt: The prompt's tokens that are scored so far; None where none is to be, or all were delivered.
    """

    job: Job
    stream: TokenStream
    sampler: Sampler
    ends: frozenset[int]
    cached: int | None = None
    prompt: list[PromptToken] | None = field(init=False)

    def __post_init__(self) -> None:
        self.prompt = None if self.job.prompt_logprobs is None else [PromptToken(self.job.prompt[0])]


class LiveJobs:
    """The jobs in the engine, by request id. A forward pass is `begin`, `score`, `choose` and `collect`."""

    def __init__(self) -> None:
        self._jobs: dict[str, LiveJob] = {}
        self._chosen: dict[str, Choice] = {}
        self._failed: dict[str, RequestError] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._jobs)

    def __getitem__(self, request_id: str) -> LiveJob:
        return self._jobs[request_id]

    def add(self, request_id: str, live: LiveJob) -> None:
        """Adds a job that the runner has queued."""
        self._jobs[request_id] = live

    def remove(self, request_id: str) -> bool:
        """Removes a job; returns whether it was there."""
        return self._jobs.pop(request_id, None) is not None

    def fail(self, request_ids: Collection[str], error: RequestError) -> list[Event]:
        """Removes jobs that end with an error."""
        gone = [self._jobs.pop(request_id, None) for request_id in request_ids]
        return [(live.stream, error) for live in gone if live is not None]

    def begin(self, rows: Sequence[Row]) -> None:
        """Starts a pass over these rows."""
        self._chosen, self._failed = {}, {}
        for row in rows:
            live = self._jobs.get(row.request_id)
            if live is not None and live.cached is None:
                live.cached = row.before

    def choose(self, request_ids: Sequence[str], logits: Tensor) -> list[int]:
        """Returns the next tokens of jobs, and keeps their log-probabilities and errors.

        Shapes:
            logits: [len(request_ids), V], float32.
        """
        outcomes = choose([self._jobs[request_id].sampler for request_id in request_ids], logits)
        tokens = []
        for request_id, outcome in zip(request_ids, outcomes, strict=True):
            if isinstance(outcome, RequestError):
                self._failed[request_id] = outcome
                tokens.append(_NO_TOKEN)
            else:
                self._chosen[request_id] = outcome
                tokens.append(outcome[0])
        return tokens

    def score(self, request_id: str, first: int, logits: Tensor) -> None:
        """Keeps the log-probabilities of tokens of a prompt.

        Args:
            first: The first of the tokens that are scored.

        Shapes:
            logits: [n, V], float32.
        """
        live = self._jobs[request_id]
        assert live.prompt is not None and live.job.prompt_logprobs is not None
        tokens = live.job.prompt[first : first + len(logits)]
        try:
            live.prompt += score_tokens(tokens, logits, live.job.prompt_logprobs)
        except Exception as error:  # of whatever kind: it must not fail the other requests of the batch
            if not isinstance(error, RequestError):
                log.exception("the prompt of a request could not be scored; it fails")
                message = f"the prompt could not be scored: {one_line(error)}"
                error = RequestError(message, status=500, code="scoring_failed")
            self._failed[request_id] = error

    @property
    def failed(self) -> dict[str, RequestError]:
        """Errors of the last pass, each of one job alone."""
        return self._failed

    def collect(self, complete: Collection[str]) -> list[Event]:
        """Ends a pass: returns its tokens, and removes the jobs that are complete."""
        events: list[Event] = []
        for request_id in complete:
            live = self._jobs.get(request_id)
            if live is not None and request_id not in self._chosen:  # its prompt alone was asked for
                del self._jobs[request_id]
                events.append((live.stream, PromptScores(tuple(live.prompt or ()), "length")))
        for request_id, (token, logprob, top) in self._chosen.items():
            live = self._jobs.get(request_id)
            if live is None:
                continue
            if live.prompt is not None:
                events.append((live.stream, PromptScores(tuple(live.prompt))))
                live.prompt = None
            finish = None
            if request_id in complete:
                finish = "stop" if token in live.ends else "length"
                del self._jobs[request_id]
            events.append((live.stream, Token(token, finish, logprob, top, live.cached or 0)))  # type: ignore[arg-type]
        return events

    def adapters(self, running: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Returns the names of adapters of jobs in the batch, and of the others."""
        in_batch: set[str] = set()
        waiting: set[str] = set()
        for request_id, live in self._jobs.items():
            (in_batch if request_id in running else waiting).update(version.name for version in live.job.strengths)
        return tuple(sorted(in_batch)), tuple(sorted(waiting))
