"""From a request to jobs for the engine, and the `Answer` that reads their tokens. No HTTP.

A request's fields were checked when its body was read (`requests`); what depends on the model, the adapters that are
loaded and the engine's limits is checked here.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from kaito_core.api.messages import shown
from kaito_runtime.adapters.cards import Choice
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.engine.protocol import Engine, Grammar, Job, TokenStream
from kaito_runtime.errors import RequestError
from kaito_runtime.openai.codec import TextCodec
from kaito_runtime.openai.grammar import broken_schema
from kaito_runtime.openai.requests import ChatRequest, CompletionRequest, GenerationRequest
from kaito_runtime.openai.stream import Answer, Recorder
from kaito_runtime.openai.text import INCOMPLETE
from kaito_runtime.openai.tool_plan import ChatPlan, call_grammar, json_rule, plan_chat

__all__ = ["CompletionService"]

_COMPLETION_TOKENS = 16  # OpenAI's default
_MOST_PROMPTS = 1024
_TOOL_SIZE = 1000  # characters of a tool, about
_LONG_TEXT = 20_000  # characters; a tokenizer needs 2 s for a million, in which probes must be answered
T = TypeVar("T")


class CompletionService:
    """Starts an answer for each request.

    Args:
        adapters: The adapters of each model id.
        recorder: Counts what is accepted.
        seconds: Time limit of a request, waiting included; None for none.
    """

    def __init__(
        self,
        engine: Engine,
        codec: TextCodec,
        adapters: AdapterManager,
        recorder: Recorder,
        seconds: float | None = None,
    ) -> None:
        self._seconds = seconds
        self._engine = engine
        self._codec = codec
        self._adapters = adapters
        self._recorder = recorder

    def text_of(self, token: int) -> str:
        """Returns the text of a single token, or "token_id:N" for a token that is part of a character."""
        text = self._codec.decode([token])
        return f"token_id:{token}" if INCOMPLETE in text else text

    async def length_of(self, prompt: str) -> int:
        """Returns the number of tokens of a plain prompt."""
        return len(await _in_thread_if_long(lambda: self._codec.encode(prompt), len(prompt)))

    async def chat(self, request: ChatRequest) -> Answer:
        """Starts the next turn of a conversation.

        Raises:
            RequestError: The request cannot be served; its status says why.
        """
        self._choose(request)  # first: an unknown model is reported before a bad message
        size = sum(len(message.text) for message in request.messages) + len(request.tools or ()) * _TOOL_SIZE
        has_form = request.schema_body is not None

        def prepare() -> tuple[ChatPlan, list[int]]:
            plan = plan_chat(request, self._codec, has_form=has_form)
            return plan, self._codec.encode(plan.prompt, special=False)

        plan, prompt = await _in_thread_if_long(prepare, size)
        logprobs = (request.top_logprobs or 0) if request.logprobs else None
        if request.top_logprobs and not request.logprobs:
            raise RequestError("top_logprobs needs logprobs to be true", param="top_logprobs")
        limit = request.max_completion_tokens or request.max_tokens
        return await self._answer(request, [prompt], limit=limit, logprobs=logprobs, where="messages", plan=plan)

    async def completion(self, request: CompletionRequest) -> Answer:
        """Starts the continuation of one or more prompts.

        Raises:
            RequestError: The request cannot be served; its status says why.
        """
        self._choose(request)
        if request.echo and request.logprobs is not None:
            raise RequestError("echo cannot be combined with logprobs", param="echo")
        size = len(request.prompt) if isinstance(request.prompt, str) else sum(map(_length, request.prompt))
        prompts = await _in_thread_if_long(lambda: self._prompts(request.prompt), size)
        limit = request.max_tokens or _COMPLETION_TOKENS
        return await self._answer(
            request, prompts, limit=limit, logprobs=request.logprobs, where="prompt", echo=bool(request.echo)
        )

    def _choose(self, request: GenerationRequest) -> Choice:
        overrides = request.adapters
        pairs = None if overrides is None else [(choice.name, choice.strength) for choice in overrides]
        return self._adapters.catalog.choose(request.model, pairs)

    async def _answer(
        self,
        request: GenerationRequest,
        prompts: Sequence[list[int]],
        *,
        limit: int | None,
        logprobs: int | None,
        where: str,
        echo: bool = False,
        plan: ChatPlan | None = None,
    ) -> Answer:
        self._check_count(len(prompts), request.n or 1)
        rooms = [self._room(prompt, where) for prompt in prompts]
        self._check_bias(request)
        grammar = await self._grammar(request, plan)
        # Again, without a wait before `submit`: what was served when the tokenizer or the grammar began may be retired
        # by now.
        choice = self._choose(request)
        jobs = [
            Job(
                prompt,
                min(limit or room, room),
                choice.strengths,
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
        self._recorder.request(request.model, [version.name for version in choice.strengths], prompt_tokens)
        return Answer(
            streams,
            codec=self._codec,
            stops=request.stops,
            prompt_tokens=prompt_tokens,
            generation=choice.generation,
            recorder=self._recorder,
            n=request.n or 1,
            seconds=self._seconds,
            echoes=[self._codec.decode(job.prompt) for job in jobs] if echo else (),
            new_reader=None if plan is None else plan.new_reader,
            kept=frozenset() if plan is None else plan.kept,
        )

    async def _grammar(self, request: GenerationRequest, plan: ChatPlan | None) -> Grammar | None:
        schema = request.schema_body
        calls = plan is not None and bool(plan.tools)
        if schema is None and not calls:
            return None
        if request.ignore_eos and (schema is not None or (plan is not None and plan.must_call)):
            raise RequestError("ignore_eos cannot be combined with a JSON response_format", param="ignore_eos")
        if plan is not None and plan.tools:
            return await asyncio.to_thread(self._grammar_of_calls, plan, schema)
        assert schema is not None
        return await asyncio.to_thread(self._codec.grammar, schema)

    def _grammar_of_calls(self, plan: ChatPlan, schema: Mapping[str, Any] | None) -> Grammar | None:
        """Returns the grammar of calls that must come, or of a choice between calls and JSON; None for any text."""
        for place, tool in plan.tools:
            if why := broken_schema(tool.function.schema_of_arguments()):
                param = f"tools[{place}].function.parameters"
                raise RequestError(f"{param} must be a JSON schema: {why}", param=param)
        if not plan.must_call and schema is None:
            return None
        answer = "" if plan.must_call or schema is None else json_rule(schema)
        try:
            return self._codec.call_grammar(call_grammar(plan, answer), "tools")
        except RequestError:
            for place, tool in plan.tools:  # which one is it?
                param = f"tools[{place}].function.parameters"
                self._codec.call_grammar(f"start: {json_rule(tool.function.schema_of_arguments())}", param)
            raise

    def _check_count(self, prompts: int, n: int) -> None:
        """Refuses what would not fit an idle server either: to retry, as 429 asks, could never help."""
        most = self._engine.most_jobs
        if prompts * n <= most:
            return
        both = f"prompt has {prompts} entries and n is {n}, {prompts * n} choices in all"
        asked = f"n is {n}" if prompts == 1 else f"prompt has {prompts} entries" if n == 1 else both
        advice = f"send at most {most // n} of them at once" if most >= n else f"set n to at most {most}"
        message = f"{asked}; this server takes at most {most} at a time, running and waiting: {advice}"
        raise RequestError(message, param="n" if prompts == 1 else "prompt")

    def _room(self, prompt: Sequence[int], where: str) -> int:
        context = self._engine.context_length
        if not prompt:
            raise RequestError(f"{where} must not be empty", param=where)
        if len(prompt) >= context:
            raise RequestError(
                f"{where} has {len(prompt)} tokens; the context of {context} tokens must also hold the answer",
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
            message = f"prompt must have at most {_MOST_PROMPTS} entries, got {len(prompt)}"
            raise RequestError(message, param="prompt")
        prompts = [self._codec.encode(entry) if isinstance(entry, str) else list(entry) for entry in prompt]
        size = self._engine.vocabulary_size
        if wrong := [token for tokens in prompts for token in tokens if not 0 <= token < size]:
            raise RequestError(f"prompt must have tokens from 0 to {size - 1}, got {shown(wrong[0])}", param="prompt")
        return prompts

    def _check_bias(self, request: GenerationRequest) -> None:
        size = self._engine.vocabulary_size
        if wrong := [token for token in request.logit_bias or () if int(token) >= size]:
            message = f"logit_bias must have tokens from 0 to {size - 1}, got {wrong[0]}"
            raise RequestError(message, param="logit_bias")


def _length(entry: str | int | list[int]) -> int:
    return 1 if isinstance(entry, int) else len(entry)


async def _in_thread_if_long(work: Callable[[], T], size: int) -> T:
    """Returns the result of `work`, which reads `size` characters: in a thread where it would block the event loop."""
    return await asyncio.to_thread(work) if size > _LONG_TEXT else work()
