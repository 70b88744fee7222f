"""The bodies of OpenAI's API that are served here: requests as schemas, answers as functions. No HTTP."""

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kaito_runtime.adapters.catalog import ModelCard
from kaito_runtime.engine.protocol import Grammar, Sampling, Token

__all__ = [
    "Body",
    "ChatRequest",
    "CompletionRequest",
    "Piece",
    "Reply",
    "Usage",
    "error_body",
    "model_body",
    "sse",
]

Stop = Annotated[list[str], Field(max_length=16)] | str | None
TokenKey = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Text = str | list[dict[str, Any]] | None
_MAX_N = 16
_SEED = 2**63


class Body(BaseModel):
    """What every request has in common. Unknown fields are ignored, since clients send what other servers know."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _can_be_written(cls, body: object) -> object:
        try:
            json.dumps(body, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:  # JSON can escape it, but no tokenizer and no answer can hold it
            raise ValueError(f"a text has half of a surrogate pair: {error.object[error.start]!r}") from error
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        return body


class JsonSchema(BaseModel):
    """The schema of an answer, as OpenAI wraps it."""

    model_config = ConfigDict(strict=True, extra="ignore")

    name: str | None = None
    body: dict[str, Any] = Field(alias="schema", description="A JSON schema. It is always kept to, strict or not.")


class ResponseFormat(BaseModel):
    """What an answer must look like."""

    model_config = ConfigDict(strict=True, extra="ignore")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("type 'json_schema' needs the field json_schema with a schema in it")
        return self

    @property
    def schema_body(self) -> dict[str, Any] | None:
        """The schema of the answer, None for any text."""
        if self.type == "text":
            return None
        return self.json_schema.body if self.type == "json_schema" and self.json_schema else {"type": "object"}


class _Request(Body):
    """Fields of both endpoints."""

    model: str
    adapters: list[Any] | None = Field(
        default=None,
        description='Adapters of this request, [{"name": ..., "strength": ...}], instead of those of the model id. '
        "An empty list is the base model.",
    )
    n: int | None = Field(default=None, ge=1, le=_MAX_N)
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-_SEED, lt=_SEED)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    logit_bias: dict[TokenKey, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]] | None = None
    stop: Stop = None
    response_format: ResponseFormat | None = None
    ignore_eos: bool | None = Field(default=None, description="Go on after an end-of-sequence token.")

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def schema_body(self) -> dict[str, Any] | None:
        """The JSON schema that the answer must follow, None for any text."""
        return None if self.response_format is None else self.response_format.schema_body

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return bool((self.stream_options or {}).get("include_usage"))

    def sampling(self, index: int, logprobs: int | None, grammar: Grammar | None) -> Sampling:
        """Returns how choice `index` is sampled; each choice of a seeded request has a seed of its own."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=max(self.top_k or 0, 0),
            min_p=self.min_p or 0.0,
            seed=None if self.seed is None else (self.seed + index) % _SEED,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
            logprobs=logprobs,
            grammar=grammar,
        )


class CompletionRequest(_Request):
    """Body of POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    logprobs: int | None = Field(default=None, ge=0, le=20)
    echo: bool | None = None
    suffix: None = None


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(strict=True, extra="ignore")

    role: str = Field(min_length=1)
    content: Text = None

    @field_validator("content")
    @classmethod
    def _is_text(cls, content: Text) -> Text:
        for index, part in enumerate(content if isinstance(content, list) else ()):
            if part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
                raise ValueError(f"part {index} must be of type 'text' with a text: only text is served")
        return content

    def plain(self) -> dict[str, str]:
        """Returns the message with its text parts joined."""
        parts = self.content if isinstance(self.content, list) else [{"text": self.content or ""}]
        return {"role": self.role, "content": "".join(str(part.get("text", "")) for part in parts)}


class ChatRequest(_Request):
    """Body of POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: list[Any] | None = None
    functions: list[Any] | None = None

    @field_validator("tools", "functions")
    @classmethod
    def _is_empty(cls, tools: list[Any] | None) -> list[Any] | None:
        if tools:  # a client that offers tools waits for calls that would never come
            raise ValueError("tools are not served: ask without them, or for JSON by response_format")
        return tools


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request.

    Attributes:
        cached: Tokens of the prompts that were not computed, since an earlier request had the same.
    """

    prompt: int
    completion: int
    cached: int = 0

    def body(self) -> dict[str, Any]:
        """Returns OpenAI's "usage"."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass(frozen=True, slots=True)
class Piece:
    """What one choice gained.

    Attributes:
        index: Of the choice.
        tokens: With the text of each; empty where no log-probabilities were asked for.
        finish: Why the choice ends with this piece, or None.
    """

    index: int
    text: str
    tokens: Sequence[tuple[Token, str]] = ()
    finish: Literal["stop", "length"] | None = None


class Reply:
    """Words the answer to one request, whole or in chunks.

    Args:
        chat: Which of the two endpoints it is for.
        text_of: Text of a single token, for log-probabilities; None where none were asked for.
    """

    def __init__(self, *, chat: bool, model: str, text_of: Callable[[int], str] | None) -> None:
        self._chat = chat
        self._text_of = text_of
        self._offsets: dict[int, int] = {}
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._head = {"id": self.id, "created": int(time.time()), "model": model}

    def whole(self, pieces: Sequence[Piece], usage: Usage) -> dict[str, Any]:
        """Returns the answer in one body; `pieces` has one piece per choice, in order."""
        choices = []
        for piece in pieces:
            content = {"message": {"role": "assistant", "content": piece.text}} if self._chat else {"text": piece.text}
            choices.append(self._choice(piece, content))
        kind = "chat.completion" if self._chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices, "usage": usage.body()}

    def opening(self, index: int) -> dict[str, Any] | None:
        """Returns the chunk that opens a choice, if the endpoint has one."""
        if not self._chat:
            return None
        choice = {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }
        return self._chunk([choice])

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """Returns the chunk with one piece."""
        content = {"delta": {"content": piece.text} if piece.text else {}} if self._chat else {"text": piece.text}
        return self._chunk([self._choice(piece, content)])

    def closing(self, usage: Usage) -> dict[str, Any]:
        """Returns the chunk with the token counts."""
        return {**self._chunk([]), "usage": usage.body()}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            **self._head,
            "object": "chat.completion.chunk" if self._chat else "text_completion",
            "choices": choices,
        }

    def _choice(self, piece: Piece, content: Mapping[str, Any]) -> dict[str, Any]:
        return {"index": piece.index, **content, "logprobs": self._logprobs(piece), "finish_reason": piece.finish}

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if self._text_of is None:
            return None
        if self._chat:
            content = [
                {
                    **_token_body(self._text_of(token.id), token.logprob),
                    "top_logprobs": [_token_body(self._text_of(other), value) for other, value in token.top],
                }
                for token, _ in piece.tokens
            ]
            return {"content": content, "refusal": None}
        offsets = []
        offset = self._offsets.get(piece.index, 0)
        for _, text in piece.tokens:
            offsets.append(offset)
            offset += len(text)
        self._offsets[piece.index] = offset
        return {
            "tokens": [self._text_of(token.id) for token, _ in piece.tokens],
            "token_logprobs": [token.logprob for token, _ in piece.tokens],
            "top_logprobs": [{self._text_of(other): value for other, value in token.top} for token, _ in piece.tokens],
            "text_offset": offsets,
        }


def _token_body(text: str, logprob: float | None) -> dict[str, Any]:
    whole = not text.startswith("token_id:")
    return {"token": text, "logprob": logprob, "bytes": list(text.encode()) if whole else None}


def model_body(card: ModelCard, created: int, context_length: int) -> dict[str, Any]:
    """Returns a model as /v1/models lists it."""
    single = next(iter(card.strengths.values())) if len(card.strengths) == 1 else None
    return {
        "id": card.id,
        "object": "model",
        "created": created,
        "owned_by": "kaito",
        "root": card.root,
        "parent": card.parent,
        "max_model_len": context_length,
        "strength": single,
        "adapters": [{"name": name, "strength": strength} for name, strength in card.strengths.items()],
    }


def error_body(message: str, *, status: int, code: str | None, param: str | None) -> dict[str, Any]:
    """Returns OpenAI's error body."""
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error" if status < 500 else "server_error"
    )
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def sse(body: Mapping[str, Any]) -> str:
    """Returns one server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n"
