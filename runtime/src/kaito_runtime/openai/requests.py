"""The bodies of requests, as schemas: what a field may hold, and what it means for sampling. No HTTP.

What depends on the model or on the adapters that are loaded is checked in `service` and `adapters.catalog`.
"""

import json
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from kaito_core.api.messages import shown
from kaito_core.api.strength import MAX_STRENGTH, MAX_STRENGTH_TEXT, STRENGTH_PATTERN, parse_strength
from kaito_runtime.engine.protocol import GREEDY_BELOW, Grammar, Sampling
from kaito_runtime.openai.tools import MAX_TOOLS, Tool, ToolCall, ToolChoiceField

__all__ = ["AdapterChoice", "Body", "ChatMessage", "ChatRequest", "CompletionRequest"]

Stop = Annotated[list[str], Field(max_length=16)] | str | None
TokenKey = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Text = str | list[dict[str, Any]] | None
_MAX_N = 16
_SEED = 2**63
_NUMBER = {"type": "number", "minimum": -MAX_STRENGTH, "maximum": MAX_STRENGTH}
_DECIMAL_TEXT = {"type": "string", "pattern": STRENGTH_PATTERN, "maxLength": MAX_STRENGTH_TEXT}


class Body(BaseModel):
    """Base of every request body. Unknown fields are ignored: clients send fields that only other servers know."""

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _can_be_written(cls, body: object) -> object:
        try:
            json.dumps(body, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:  # JSON can escape it, but no tokenizer and no answer can hold it
            raise ValueError(f"must not have half of a surrogate pair: {error.object[error.start]!r}") from error
        except RecursionError as error:
            raise ValueError("must be nested less deeply") from error
        return body


class AdapterChoice(BaseModel):
    """An adapter that a request asks for."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    # Only what is given is parsed: null is refused like any other value that is not a number.
    strength: Annotated[
        float | None, BeforeValidator(parse_strength), WithJsonSchema({"anyOf": [_NUMBER, _DECIMAL_TEXT]})
    ] = Field(default=None, description="Multiplier of the adapter; if absent, its declared strength.")

    @model_validator(mode="before")
    @classmethod
    def _has_known_fields(cls, choice: object) -> object:
        if isinstance(choice, cls):
            return choice
        if not isinstance(choice, dict):
            raise ValueError(f'must be {{"name": ..., "strength": ...}}, got {shown(choice)}')
        if unknown := sorted(set(choice) - set(cls.model_fields)):
            raise ValueError(f"has the unknown field {shown(unknown[0])}, known: {', '.join(cls.model_fields)}")
        return choice


class JsonSchema(BaseModel):
    """The JSON schema of the answer, in OpenAI's wrapping."""

    model_config = ConfigDict(strict=True, extra="ignore")

    name: str | None = None
    body: dict[str, Any] = Field(
        alias="schema", description="A JSON schema. It is always enforced, with or without `strict`."
    )


class ResponseFormat(BaseModel):
    """The form of the answer: any text, any JSON object, or JSON by a schema."""

    model_config = ConfigDict(strict=True, extra="ignore")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("must have the field json_schema with a schema, since its type is 'json_schema'")
        return self

    @property
    def schema_body(self) -> dict[str, Any] | None:
        """The schema of the answer; None for any text."""
        if self.type == "text":
            return None
        return self.json_schema.body if self.type == "json_schema" and self.json_schema else {"type": "object"}


class GenerationRequest(Body):
    """Fields of both endpoints."""

    model: str
    adapters: list[AdapterChoice] | None = Field(
        default=None,
        description="Adapters of this request, instead of those of the model id. An empty list is the base model.",
    )
    n: int | None = Field(default=None, ge=1, le=_MAX_N)
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description=f"1 if not given. Below {GREEDY_BELOW:g} the most likely token is taken, as for 0.",
    )
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-_SEED, lt=_SEED)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    logit_bias: dict[TokenKey, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]] | None = None
    stop: Stop = None
    response_format: ResponseFormat | None = None
    ignore_eos: bool | None = Field(default=None, description="Continue after an end-of-sequence token.")

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def schema_body(self) -> dict[str, Any] | None:
        """The JSON schema that the answer must follow; None for any text."""
        return None if self.response_format is None else self.response_format.schema_body

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return bool((self.stream_options or {}).get("include_usage"))

    def sampling(self, index: int, logprobs: int | None, grammar: Grammar | None) -> Sampling:
        """Returns the sampling of choice `index`; each choice of a seeded request has its own seed."""
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


class CompletionRequest(GenerationRequest):
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
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: None = Field(default=None, description="Must be absent: use tool_calls.")

    @field_validator("content")
    @classmethod
    def _is_text(cls, content: Text) -> Text:
        for index, part in enumerate(content if isinstance(content, list) else ()):
            if part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
                raise ValueError(
                    f"must have parts of type 'text' only, each with a text; part {index} is something else"
                )
        return content

    @model_validator(mode="after")
    def _fits_its_role(self) -> "ChatMessage":
        if self.role == "function":
            raise ValueError("must have the role 'tool' and a tool_call_id for a function's result, got 'function'")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("must have a tool_call_id, since its role is 'tool'")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"must have tool_calls only where its role is 'assistant', got {shown(self.role)}")
        return self

    @property
    def text(self) -> str:
        """The content, its parts joined."""
        parts = self.content if isinstance(self.content, list) else [{"text": self.content or ""}]
        return "".join(str(part.get("text", "")) for part in parts)

    def for_template(self) -> dict[str, Any]:
        """Returns the message as chat templates take it: text, and the arguments of calls as objects."""
        role = "system" if self.role == "developer" else self.role  # OpenAI's newer name
        message: dict[str, Any] = {"role": role, "content": self.text}
        for key in ("name", "reasoning_content", "tool_call_id"):
            if (value := getattr(self, key)) is not None:
                message[key] = value
        if self.tool_calls:
            message["tool_calls"] = [call.model_dump() for call in self.tool_calls]
        return message


class ChatRequest(GenerationRequest):
    """Body of POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: ToolChoiceField = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = Field(default=None, description="Must be empty: use tools.")

    @field_validator("functions")
    @classmethod
    def _is_empty(cls, functions: list[Any] | None) -> list[Any] | None:
        if functions:  # a client that offers them waits for calls that would never come in this form
            raise ValueError("must be empty: give the functions as tools instead")
        return functions
