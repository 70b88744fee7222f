"""An engine and a codec in memory, for tests of what is around them."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import SandboxedEnvironment

from kaito_runtime.engine.protocol import (
    NO_DEFAULTS,
    EngineStats,
    Job,
    PromptScores,
    PromptToken,
    Sampling,
    Token,
    TokenStream,
)
from kaito_runtime.errors import AdapterLoadError, RequestError
from kaito_runtime.openai.fields.forms import AnswerForm

_HOLD_SECONDS = 10.0  # then a stream that should have been ended fails its test instead of hanging


@dataclass(frozen=True)
class FakeVersion:
    """Stands in for an adapter version."""

    name: str
    digest: str
    number: int


@dataclass
class FakeEngine:
    """Gives `text`, one byte per token, unless it is set to wait or to fail.

    Attributes:
        broken: Adapter names to reasons why they cannot be loaded, or to what is raised instead.
        lost: Why it can compute nothing any more.
        error: Raised by `submit`.
        fails_after: The stream fails after so many tokens.
        cached: Tokens of the prompt that were found computed, by job; 0 beyond.
        asked: Adapter names that were to be loaded, in order.
        ends: An end token follows the text.
        holds: Streams stay open after their first token, for longer than any test waits.
    """

    text: str = "hello"
    context_length: int = 64
    vocabulary_size: int = 256
    default_sampling: Sampling = NO_DEFAULTS
    most_jobs: int = 2048
    alive: bool = True
    lost: str = ""
    broken: dict[str, str | Exception] = field(default_factory=dict)
    error: RequestError | None = None
    fails_after: int | None = None
    cached: Sequence[int] = ()
    holds: bool = False
    ends: bool = False
    failures_in_a_row: int = 0
    jobs: list[Job] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    loaded: list[FakeVersion] = field(default_factory=list)
    retired: list[FakeVersion] = field(default_factory=list)

    def submit(self, job: Job) -> TokenStream:
        if self.error is not None:
            raise self.error
        number = len(self.jobs)
        self.jobs.append(job)
        stream = TokenStream(lambda: self.cancelled.append(number))
        ends = self.ends and job.max_tokens > len(self.text.encode())
        if job.prompt_logprobs is not None or job.max_tokens == 0:
            top = tuple((other, -0.25 - other) for other in range(job.prompt_logprobs or 0))
            first, *others = job.prompt
            scored = (PromptToken(first), *(PromptToken(token, -0.5, top) for token in others))
            scored = scored if job.prompt_logprobs is not None else ()
            stream.put(PromptScores(scored, None if job.max_tokens else "length"))
        for index, byte in enumerate(self.text.encode()[: job.max_tokens]):
            if index == self.fails_after:
                stream.put(RequestError("the model failed", status=500, code="engine_error"))
                break
            last = index + 1 == min(job.max_tokens, len(self.text.encode())) and not ends
            cached = self.cached[number] if number < len(self.cached) else 0
            stream.put(Token(byte, "length" if last and not self.holds else None, cached=cached))
            if self.holds:
                late = RequestError("nobody ended this stream", status=500, code="forgotten")
                asyncio.get_running_loop().call_later(_HOLD_SECONDS, stream.put, late)
                break
        else:
            if ends:
                stream.put(Token(0, "stop"))
        return stream

    async def load_adapter(self, name: str, path: Path, digest: str | None) -> FakeVersion:
        self.asked.append(name)
        match self.broken.get(name):
            case Exception() as error:
                raise error
            case str() as reason:
                raise AdapterLoadError(name, reason)
        self.loaded.append(FakeVersion(name, digest or "sha256:found", len(self.loaded)))
        return self.loaded[-1]

    def retire_adapter(self, version: FakeVersion) -> None:
        self.retired.append(version)

    def stats(self) -> EngineStats:
        return EngineStats(failures=self.failures_in_a_row, failures_in_a_row=self.failures_in_a_row)


@dataclass(frozen=True)
class FakeGrammar:
    """Stands in for a grammar; the fake engine does not look at it."""

    form: AnswerForm

    def start(self) -> "FakeGrammar":
        return self

    def allowed(self) -> bytes:
        return b""

    def push(self, token: int) -> None:
        pass

    @property
    def stuck(self) -> str:
        return ""


@dataclass
class ByteCodec:
    """One token per byte.

    Attributes:
        chat_template: A template for Jinja, or "" for one that knows no tools.
        tool_formats: Those of a recipe.
        rendered: Template and options of the last conversation.
    """

    chat_template: str = ""
    tool_formats: Sequence[Any] = ()
    special: Mapping[int, str] = field(default_factory=dict)
    rendered: tuple[str, dict[str, Any]] | None = None

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return list(text.encode())

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        template: str = "",
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        self.rendered = (template, dict(options))
        if not (template or self.chat_template):
            return "".join(f"{message['role']}:{message['content']}\n" for message in messages)
        try:
            compiled = SandboxedEnvironment().from_string(template or self.chat_template)
            return compiled.render(messages=messages, tools=list(tools) or None, raise_exception=_refuse, **options)
        except (TypeError, ValueError, TemplateError) as error:
            raise RequestError(f"messages: the model's chat template refuses them: {error}") from error

    def grammar(self, form: AnswerForm) -> FakeGrammar:
        if form.kind == "json" and form.value.get("type") != "object":
            raise RequestError("response_format.json_schema.schema: the fake takes objects")
        return FakeGrammar(form)

    def bans(self, words: Sequence[str]) -> Any:
        return tuple(words)

    def decode(self, tokens: Sequence[int], kept: Collection[int] = ()) -> str:
        shown = (self.token_bytes(token) for token in tokens if token in kept or token not in self.special)
        return b"".join(shown).decode(errors="replace")

    def token_bytes(self, token: int) -> bytes:
        return self.special[token].encode() if token in self.special else bytes([token])


def _refuse(message: str) -> None:
    raise ValueError(message)


def write_adapter(folder: Path, content: str = "") -> Path:
    """Writes files that `FakeEngine` takes for an adapter."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_text(content)
    return folder
