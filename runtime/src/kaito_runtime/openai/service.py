"""From a request to jobs for the engine, and the `Answer` that reads their tokens. No HTTP.

A request's fields were checked when its body was read (`requests`); what depends on the model, the adapters that are
loaded and the engine's limits is checked here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from kaito_core.api.messages import shown
from kaito_runtime.adapters.cards import Choice
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.engine.protocol import Engine, Grammar, Job, TokenStream
from kaito_runtime.errors import RequestError
from kaito_runtime.openai.codec import TextCodec
from kaito_runtime.openai.fields.forms import AnswerForm
from kaito_runtime.openai.grammar import broken_schema
from kaito_runtime.openai.replies import Reply
from kaito_runtime.openai.requests import ChatRequest, CompletionRequest, GenerationRequest
from kaito_runtime.openai.stream import Answer, Recorder
from kaito_runtime.openai.tool_plan import ChatPlan, call_grammar, json_rule, plan_chat

__all__ = ["CompletionService"]

log = logging.getLogger(__name__)

_COMPLETION_TOKENS = 16  # OpenAI's default
_MOST_PROMPTS = 1024
_TOOL_SIZE = 1000  # characters of a tool, about
_LONG_TEXT = 20_000  # characters; a tokenizer needs 2 s for a million, in which probes must be answered
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What the two endpoints ask for in different words.

    Attributes:
        where: The field that has the prompt.
        limit: Most tokens of the answer; None for what the context has room for.
        logprobs: Number of alternatives to each token; None for no log-probabilities.
        echo: Whether the prompt is put in front of the answer.
        best_of: Choices to compute for each prompt.
        form: The form that the answer must have; None for any text.
        chat: What the conversation became; None for completions.
    """

    where: str
    limit: int | None
    logprobs: int | None
    echo: bool = False
    best_of: int = 1
    form: AnswerForm | None = None
    chat: ChatPlan | None = None


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
        self._warned: set[str] = set()

    def reply(self, request: GenerationRequest, generation: int) -> Reply:
        """Returns what makes the bodies of the response to a request."""
        chat = isinstance(request, ChatRequest)
        asked = request.logprobs if isinstance(request, ChatRequest | CompletionRequest) else None
        return Reply(
            chat=chat,
            model=request.model,
            generation=generation,
            bytes_of=self._codec.token_bytes,
            logprobs=bool(asked) if chat else asked is not None,
        )

    async def length_of(self, prompt: str) -> int:
        """Returns the number of tokens of a plain prompt."""
        return len(await _in_thread_if_long(lambda: self._codec.encode(prompt), len(prompt)))

    async def chat(self, request: ChatRequest) -> Answer:
        """Starts the next turn of a conversation.

        Raises:
            RequestError: The request cannot be served; its status says why.
        """
        choice = self._choose(request)  # first: an unknown model is reported before a bad message
        template = self._template(choice)
        size = sum(len(message.text) for message in request.messages) + len(request.tools or ()) * _TOOL_SIZE
        form = request.form

        def prepare() -> tuple[ChatPlan, list[int]]:
            chat = plan_chat(request, self._codec, has_form=form is not None, template=template)
            return chat, self._codec.encode(chat.prompt, special=bool(request.add_special_tokens))

        chat, prompt = await _in_thread_if_long(prepare, size)
        if request.top_logprobs and not request.logprobs:
            raise RequestError("top_logprobs needs logprobs to be true", param="top_logprobs")
        plan = _Plan(
            where="messages",
            limit=request.max_completion_tokens or request.max_tokens,
            logprobs=(request.top_logprobs or 0) if request.logprobs else None,
            form=form,
            chat=chat,
        )
        return await self._answer(request, [prompt], plan)

    async def completion(self, request: CompletionRequest) -> Answer:
        """Starts the continuation of one or more prompts.

        Raises:
            RequestError: The request cannot be served; its status says why.
        """
        self._choose(request)
        size = len(request.prompt) if isinstance(request.prompt, str) else sum(map(_length, request.prompt))
        special = request.add_special_tokens is not False
        prompts = await _in_thread_if_long(lambda: self._prompts(request.prompt, special=special), size)
        plan = _Plan(
            where="prompt",
            limit=_COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens,
            logprobs=request.logprobs,
            echo=bool(request.echo),
            best_of=_best_of(request),
            form=request.form,
        )
        return await self._answer(request, prompts, plan)

    def _template(self, choice: Choice) -> str:
        """Returns the chat template that the one adapter with a template brings; "" for the model's own."""
        brought = self._adapters.chat_templates(choice.strengths)
        if len(brought) != 1:
            return ""
        (template,) = brought
        own = self._codec.chat_template
        if own and template not in (own, *self._warned):
            names = ", ".join(version.name for version in choice.strengths)
            log.warning("conversations with %s use the adapter's chat template, which is not the model's", names)
            self._warned.add(template)
        return template

    def _limit_seconds(self) -> float | None:
        """Returns the time limit of a request: the configuration's, which may change, or the command line's."""
        limits = self._adapters.catalog.config.limits
        return self._seconds if limits is None or limits.request_seconds is None else limits.request_seconds

    def _choose(self, request: GenerationRequest) -> Choice:
        catalog = self._adapters.catalog
        if request.lora is None:
            pairs = None if request.adapters is None else [(each.name, each.strength) for each in request.adapters]
            return catalog.choose(request.model, pairs)
        if request.adapters is not None:
            raise RequestError("lora must be absent where adapters is given: both mean adapters", param="lora")
        names = list(catalog.declared)
        if wrong := [each.id for each in request.lora if each.id >= len(names)]:
            known = ", ".join(f"{place} ({name})" for place, name in enumerate(names)) or "none"
            raise RequestError(f"lora: unknown id {wrong[0]}, known: {known}; or name adapters", param="lora")
        return catalog.choose(request.model, [(names[each.id], each.scale) for each in request.lora])

    async def _answer(self, request: GenerationRequest, prompts: Sequence[list[int]], plan: _Plan) -> Answer:
        n = request.n or 1
        best_of = max(plan.best_of, n)
        self._check_count(len(prompts), best_of)
        prompts = [self._cut(prompt, request, plan.limit) for prompt in prompts]
        rooms = [self._room(prompt, plan) for prompt in prompts]
        self._check_tokens(request)
        if (request.min_tokens or 0) > min(rooms if plan.limit is None else [plan.limit]):
            message = f"min_tokens must be at most max_tokens, got {request.min_tokens}"
            raise RequestError(message, param="min_tokens")
        if request.stream and request.prompt_logprobs is not None:
            raise RequestError("prompt_logprobs must be absent where stream is true", param="prompt_logprobs")
        grammar = await self._grammar(request, plan)
        words = request.bad_words
        bans = await asyncio.to_thread(self._codec.bans, words) if words else None
        # The likeliest choices are known by the log-probabilities of their tokens.
        logprobs = 0 if plan.logprobs is None and best_of > n else plan.logprobs
        scores = [request.prompt_logprobs, plan.logprobs if plan.echo else None]
        # Again, without a wait before `submit`: what was served when the tokenizer or the grammar began may be retired
        # by now.
        choice = self._choose(request)
        jobs = [
            Job(
                prompt,
                room if plan.limit is None else min(plan.limit, room),
                choice.strengths,
                request.sampling(
                    index, defaults=self._engine.default_sampling, logprobs=logprobs, grammar=grammar, bans=bans
                ),
                ignores_end=bool(request.ignore_eos),
                stop_tokens=frozenset(request.stop_token_ids or ()),
                prompt_logprobs=max((asked for asked in scores if asked is not None), default=None),
            )
            for prompt, room in zip(prompts, rooms, strict=True)
            for index in range(best_of)
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
            rules=request.text_rules,
            prompt_tokens=prompt_tokens,
            generation=choice.generation,
            recorder=self._recorder,
            n=n,
            best_of=best_of,
            seconds=self._limit_seconds(),
            echoes=[job.prompt for job in jobs] if plan.echo else (),
            new_reader=None if plan.chat is None else plan.chat.new_reader,
            kept=frozenset() if plan.chat is None else plan.chat.kept,
        )

    async def _grammar(self, request: GenerationRequest, plan: _Plan) -> Grammar | None:
        form, chat = plan.form, plan.chat
        calls = chat is not None and bool(chat.tools)
        if form is None and not calls:
            return None
        must_call = chat is not None and chat.must_call
        if request.ignore_eos and (form is not None or must_call):
            what = "tool_choice" if form is None else form.param.partition(".")[0]
            raise RequestError(f"ignore_eos cannot be combined with {what}", param="ignore_eos")
        if chat is None or not chat.tools:
            assert form is not None
            return await asyncio.to_thread(self._codec.grammar, form)
        if form is not None and form.kind != "json" and not must_call:
            message = f"{form.param} cannot be combined with tools that may be called; a JSON schema can"
            raise RequestError(message, param=form.param)
        return await asyncio.to_thread(self._grammar_of_calls, chat, None if form is None else form.value)

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
            return self._codec.grammar(AnswerForm("lark", call_grammar(plan, answer), "tools"))
        except RequestError:
            for place, tool in plan.tools:  # which one is it?
                rule = json_rule(tool.function.schema_of_arguments())
                self._codec.grammar(AnswerForm("lark", f"start: {rule}", f"tools[{place}].function.parameters"))
            raise

    def _cut(self, prompt: list[int], request: GenerationRequest, limit: int | None) -> list[int]:
        """Returns the part of a prompt that the request wants to keep."""
        kept = request.truncate_prompt_tokens
        if kept is None:
            return prompt
        if kept < 0:
            kept = max(self._engine.context_length - (1 if limit is None else limit), 1)
        if len(prompt) <= kept:
            return prompt
        return prompt[:kept] if request.truncation_side == "right" else prompt[len(prompt) - kept :]

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

    def _room(self, prompt: Sequence[int], plan: _Plan) -> int:
        context = self._engine.context_length
        if not prompt:
            raise RequestError(f"{plan.where} must not be empty", param=plan.where)
        least = 0 if plan.limit == 0 else 1
        if len(prompt) + least > context:
            # The first words are OpenAI's: clients such as litellm look for them, and turn to a model with more room.
            message = (
                f"This model's maximum context length is {context} tokens. However, your {plan.where} resulted in "
                f"{len(prompt)} tokens, and the answer needs room too. Please reduce the length of the {plan.where} or "
                "set truncate_prompt_tokens."
            )
            raise RequestError(message, code="context_length_exceeded", param=plan.where)
        return context - len(prompt)

    def _prompts(self, prompt: str | list[str] | list[int] | list[list[int]], *, special: bool) -> list[list[int]]:
        if isinstance(prompt, str):
            return [self._codec.encode(prompt, special=special)]
        if not prompt:
            raise RequestError("prompt must not be empty", param="prompt")
        if isinstance(prompt[0], int):
            prompt = [[token for token in prompt if isinstance(token, int)]]
        if len(prompt) > _MOST_PROMPTS:
            message = f"prompt must have at most {_MOST_PROMPTS} entries, got {len(prompt)}"
            raise RequestError(message, param="prompt")
        prompts = [
            self._codec.encode(entry, special=special) if isinstance(entry, str) else list(entry) for entry in prompt
        ]
        size = self._engine.vocabulary_size
        if wrong := [token for tokens in prompts for token in tokens if not 0 <= token < size]:
            raise RequestError(f"prompt must have tokens from 0 to {size - 1}, got {shown(wrong[0])}", param="prompt")
        return prompts

    def _check_tokens(self, request: GenerationRequest) -> None:
        size = self._engine.vocabulary_size
        for field in ("logit_bias", "stop_token_ids"):
            if wrong := [token for token in getattr(request, field) or () if int(token) >= size]:
                message = f"{field} must have tokens from 0 to {size - 1}, got {wrong[0]}"
                raise RequestError(message, param=field)


def _best_of(request: CompletionRequest) -> int:
    n, best_of = request.n or 1, request.best_of or request.n or 1
    if best_of < n:
        raise RequestError(f"best_of must be at least n, which is {n}, got {best_of}", param="best_of")
    if best_of > n and request.stream:
        message = "best_of must be n where stream is true: which choices are returned is known at their end"
        raise RequestError(message, param="best_of")
    return best_of


def _length(entry: str | int | list[int]) -> int:
    return 1 if isinstance(entry, int) else len(entry)


async def _in_thread_if_long(work: Callable[[], T], size: int) -> T:
    """Returns the result of `work`, which reads `size` characters: in a thread where it would block the event loop."""
    return await asyncio.to_thread(work) if size > _LONG_TEXT else work()
