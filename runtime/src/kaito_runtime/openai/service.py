"""From a checked request to jobs for the engine, and the `answer` that waits for their tokens. No HTTP."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from kaito_runtime.adapters.manager import Residents
from kaito_runtime.engine.protocol import Engine, Grammar, Job, TextCodec, TokenStream
from kaito_runtime.errors import RequestError
from kaito_runtime.http.metrics import Metrics
from kaito_runtime.openai.requests import ChatRequest, CompletionRequest
from kaito_runtime.openai.stream import Answer
from kaito_runtime.openai.text import INCOMPLETE

__all__ = ["Answers"]

_COMPLETION_TOKENS = 16  # OpenAI's default
_MOST_PROMPTS = 1024
_LONG_TEXT = 20_000  # characters; a tokenizer needs 2 s for a million, in which probes must be answered
T = TypeVar("T")


class Answers:
    """Turns requests into answers.

    Args:
        residents: Knows which adapters a model id stands for.
        seconds: Longest time that a request may take, waiting included; None for no limit.
    """

    def __init__(
        self,
        engine: Engine,
        codec: TextCodec,
        residents: Residents,
        metrics: Metrics,
        seconds: float | None = None,
    ) -> None:
        self._seconds = seconds
        self._engine = engine
        self._codec = codec
        self._residents = residents
        self._metrics = metrics

    def text_of(self, token: int) -> str:
        """Returns the text of a single token, or "token_id:N" for one that is a part of a character."""
        text = self._codec.decode([token])
        return f"token_id:{token}" if INCOMPLETE in text else text

    async def length_of(self, prompt: str) -> int:
        """Returns how many tokens a plain prompt has."""
        return len(await _beside(lambda: self._codec.encode(prompt), len(prompt)))

    async def chat(self, request: ChatRequest) -> Answer:
        """Starts to answer a conversation.

        Raises:
            RequestError: The request cannot be served; its status says why.
        """
        self._residents.catalog.strengths(request.model, request.adapters)  # an unknown model before a bad message
        messages = [message.plain() for message in request.messages]
        size = sum(len(message["content"]) + len(message["role"]) for message in messages)
        prompt = await _beside(lambda: self._codec.encode_chat(messages), size)
        logprobs = (request.top_logprobs or 0) if request.logprobs else None
        if request.top_logprobs and not request.logprobs:
            raise RequestError("top_logprobs needs logprobs to be true", param="top_logprobs")
        limit = request.max_completion_tokens or request.max_tokens
        return await self._answer(request, [prompt], limit=limit, logprobs=logprobs, where="messages")

    async def completion(self, request: CompletionRequest) -> Answer:
        """Starts to continue prompts.

        Raises:
            RequestError: The request cannot be served; its status says why.
        """
        if request.echo and request.logprobs is not None:
            raise RequestError("echo cannot be combined with logprobs", param="echo")
        size = len(request.prompt) if isinstance(request.prompt, str) else sum(map(_length, request.prompt))
        prompts = await _beside(lambda: self._prompts(request.prompt), size)
        limit = request.max_tokens or _COMPLETION_TOKENS
        return await self._answer(
            request, prompts, limit=limit, logprobs=request.logprobs, where="prompt", echo=bool(request.echo)
        )

    async def _answer(
        self,
        request: ChatRequest | CompletionRequest,
        prompts: Sequence[list[int]],
        *,
        limit: int | None,
        logprobs: int | None,
        where: str,
        echo: bool = False,
    ) -> Answer:
        self._residents.catalog.strengths(request.model, request.adapters)
        self._check_count(len(prompts), request.n or 1)
        rooms = [self._room(prompt, where) for prompt in prompts]
        self._check_bias(request)
        grammar = await self._grammar(request)
        # Not before the grammar: what was resident when that began may be retired when it is there.
        strengths = self._residents.catalog.strengths(request.model, request.adapters)
        jobs = [
            Job(
                prompt,
                min(limit or room, room),
                strengths,
                request.sampling(index, logprobs, grammar),
                bool(request.ignore_eos),
            )
            for prompt, room in zip(prompts, rooms, strict=True)
            for index in range(request.n or 1)
        ]
        streams: list[TokenStream] = []
        try:
            for job in jobs:
                streams.append(self._engine.submit(job))
        except RequestError:
            for stream in streams:
                stream.cancel()
            raise
        prompt_tokens = sum(len(prompt) for prompt in prompts)
        self._metrics.request(request.model, [version.name for version in strengths], prompt_tokens)
        return Answer(
            streams,
            codec=self._codec,
            stops=request.stops,
            prompt_tokens=prompt_tokens,
            metrics=self._metrics,
            n=request.n or 1,
            seconds=self._seconds,
            leads=[self._codec.decode(job.prompt) for job in jobs] if echo else (),
        )

    async def _grammar(self, request: ChatRequest | CompletionRequest) -> Grammar | None:
        schema = request.schema_body
        if schema is None:
            return None
        if request.ignore_eos:
            raise RequestError("ignore_eos cannot be combined with a JSON response_format", param="ignore_eos")
        return await asyncio.to_thread(self._codec.grammar, schema)

    def _check_count(self, prompts: int, n: int) -> None:
        """Refuses what would not fit an idle server either: trying again later, as 429 asks for, could never help."""
        most = self._engine.most_jobs
        if prompts * n <= most:
            return
        both = f"prompt has {prompts} entries and n is {n}, which makes {prompts * n} answers"
        asked = f"n is {n}" if prompts == 1 else f"prompt has {prompts} entries" if n == 1 else both
        advice = f"send at most {most // n} of them at once" if most >= n else f"set n to at most {most}"
        message = f"{asked}; this server holds at most {most} at a time, running and waiting: {advice}"
        raise RequestError(message, param="n" if prompts == 1 else "prompt")

    def _room(self, prompt: Sequence[int], where: str) -> int:
        context = self._engine.context_length
        if not prompt:
            raise RequestError(f"{where} must not be empty", param=where)
        if len(prompt) >= context:
            raise RequestError(
                f"{where} has {len(prompt)} tokens, the context has room for {context} with the answer",
                code="context_length_exceeded",
                param=where,
            )
        return context - len(prompt)

    def _prompts(self, prompt: str | list[str] | list[int] | list[list[int]]) -> list[list[int]]:
        if isinstance(prompt, str):
            return [self._codec.encode(prompt)]
        if not prompt:
            raise RequestError("prompt must not be empty", param="prompt")
        if isinstance(prompt[0], int):
            prompt = [[token for token in prompt if isinstance(token, int)]]
        if len(prompt) > _MOST_PROMPTS:
            message = f"prompt has {len(prompt)} entries, at most {_MOST_PROMPTS} are answered at once"
            raise RequestError(message, param="prompt")
        prompts = [self._codec.encode(entry) if isinstance(entry, str) else list(entry) for entry in prompt]
        size = self._engine.vocabulary_size
        if wrong := [token for tokens in prompts for token in tokens if not 0 <= token < size]:
            raise RequestError(f"prompt has the token {wrong[0]}, the model has 0 to {size - 1}", param="prompt")
        return prompts

    def _check_bias(self, request: ChatRequest | CompletionRequest) -> None:
        size = self._engine.vocabulary_size
        if wrong := [token for token in request.logit_bias or () if int(token) >= size]:
            message = f"logit_bias has the token {wrong[0]}, the model has 0 to {size - 1}"
            raise RequestError(message, param="logit_bias")


def _length(entry: str | int | list[int]) -> int:
    return 1 if isinstance(entry, int) else len(entry)


async def _beside(work: Callable[[], T], size: int) -> T:
    """Returns the result of `work`, which has so many characters to read: beside the event loop where it takes long."""
    return await asyncio.to_thread(work) if size > _LONG_TEXT else work()
