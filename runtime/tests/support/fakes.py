"""An engine and a codec in memory, for tests of what is around them."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import SandboxedEnvironment

from kaito_runtime.engine.protocol import EngineStats, Job, Token, TokenStream
from kaito_runtime.errors import AdapterLoadError, RequestError

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

    schema: Mapping[str, Any]

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
    """

    chat_template: str = ""
    tool_formats: Sequence[Any] = ()
    special: Mapping[int, str] = field(default_factory=dict)

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        return list(text.encode())

    def render_chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        if not self.chat_template:
            return "".join(f"{message['role']}:{message['content']}\n" for message in messages)
        try:
            template = SandboxedEnvironment().from_string(self.chat_template)
            return template.render(messages=messages, tools=list(tools) or None, raise_exception=_refuse)
        except (TypeError, ValueError, TemplateError) as error:
            raise RequestError(f"messages: the model's chat template refuses them: {error}") from error

    def grammar(self, schema: Mapping[str, Any]) -> FakeGrammar:
        if schema.get("type") != "object":
            raise RequestError("response_format.json_schema.schema: the fake takes objects")
        return FakeGrammar(schema)

    def call_grammar(self, lark: str, param: str) -> FakeGrammar:
        return FakeGrammar({"lark": lark})

    def decode(self, tokens: Sequence[int], kept: Collection[int] = ()) -> str:
        return bytes(tokens).decode(errors="replace")


def _refuse(message: str) -> None:
    raise ValueError(message)


def write_adapter(folder: Path, content: str = "") -> Path:
    """Writes files that `FakeEngine` takes for an adapter."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_text(content)
    return folder
