"""The bodies of requests, as schemas: what a field may hold, and what it means for sampling. No HTTP.

What depends on the model or on the adapters that are loaded is checked in `service` and `adapters.catalog`.
"""

import json
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from kaito_core.api.messages import shown
from kaito_core.api.strength import MAX_STRENGTH, MAX_STRENGTH_TEXT, STRENGTH_PATTERN, parse_strength
from kaito_runtime.engine.protocol import GREEDY_BELOW, MOST_LOGPROBS, Bans, Grammar, Sampling
from kaito_runtime.errors import RequestError
from kaito_runtime.openai.fields.forms import AnswerForm, ResponseFormat, StructuredOutputs, form_of
from kaito_runtime.openai.fields.table import CHAT, TEXT, Does, Endpoint, rules_of
from kaito_runtime.openai.fields.translate import translate
from kaito_runtime.openai.text import TextRules
from kaito_runtime.openai.tools import MAX_TOOLS, Tool, ToolCall, ToolChoiceField

__all__ = [
    "AdapterChoice",
    "Body",
    "ChatMessage",
    "ChatRequest",
    "CompletionRequest",
    "GenerationRequest",
    "StreamOptions",
]

Stop = Annotated[list[str], Field(max_length=16)] | str | None
TokenId = Annotated[int, Field(ge=0, lt=10**9)]
Word = Annotated[str, Field(min_length=1, max_length=1000)]
Logprobs = Annotated[int, Field(ge=0, le=MOST_LOGPROBS)]
TokenKey = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
Text = str | list[dict[str, Any]] | None
_MAX_N = 16
_SEED = 2**63
# Arguments of transformers' `apply_chat_template` besides the template's variables.
_ARGUMENTS = """
    add_generation_prompt chat_template continue_final_message conversation documents max_length messages padding
    return_assistant_tokens_mask return_dict return_tensors self tokenize tokenizer_kwargs tools truncation
"""
_NO_VARIABLES = frozenset(_ARGUMENTS.split())
_NUMBER = {"type": "number", "minimum": -MAX_STRENGTH, "maximum": MAX_STRENGTH}
_DECIMAL_TEXT = {"type": "string", "pattern": STRENGTH_PATTERN, "maxLength": MAX_STRENGTH_TEXT}


class Body(BaseModel):
    """Base of every request body.

    Attributes:
        endpoint: Whose table of fields its bodies are translated by; None where unknown fields are ignored.
    """

    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())
    endpoint: ClassVar[Endpoint | None] = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, body: object) -> object:
        try:
            json.dumps(body, ensure_ascii=False, default=str).encode()
        except UnicodeEncodeError as error:  # JSON can escape it, but no tokenizer and no answer can hold it
            raise ValueError(f"must not have half of a surrogate pair: {error.object[error.start]!r}") from error
        except RecursionError as error:
            raise ValueError("must be nested less deeply") from error
        return body if cls.endpoint is None or not isinstance(body, dict) else translate(body, cls.endpoint)

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Returns the description, with the fields that are accepted and turned into others, or left out."""
        described = handler.resolve_ref_schema(handler(core))
        if cls.endpoint is not None:
            for rule in rules_of(cls.endpoint).values():
                if rule.does is Does.SPELLING:
                    described["properties"][rule.name] = {"description": f"Another spelling of {rule.meaning}."}
                if rule.does is Does.HARMLESS:
                    described["properties"][rule.name] = {"description": f"Ignored: {rule.meaning}."}
            described["additionalProperties"] = False
        return described


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


class LoraScale(BaseModel):
    """An adapter that a request asks for in llama.cpp's words."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: int = Field(ge=0, description="Its place in GET /lora-adapters.")
    scale: Annotated[float, BeforeValidator(parse_strength), WithJsonSchema({"anyOf": [_NUMBER, _DECIMAL_TEXT]})] = 1.0


class StreamOptions(BaseModel):
    """What a stream has besides the answer."""

    model_config = ConfigDict(strict=True, extra="forbid")

    include_usage: bool | None = Field(default=None, description="The last event has the token counts.")
    continuous_usage_stats: bool | None = Field(default=None, description="With them, every event has those so far.")
    include_obfuscation: bool | None = Field(default=None, description="Ignored.")


class GenerationRequest(Body):
    """Fields of both endpoints."""

    model: str
    adapters: list[AdapterChoice] | None = Field(
        default=None,
        description="Adapters of this request, instead of those of the model id. An empty list is the base model.",
    )
    lora: list[LoraScale] | None = Field(default=None, description="The same in llama.cpp's words.")
    n: int | None = Field(default=None, ge=1, le=_MAX_N)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    min_tokens: int | None = Field(default=None, ge=0)
    temperature: float | None = Field(
        default=None,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description=f"If not given, the model's own or 1. Below {GREEDY_BELOW:g} the most likely token is taken.",
    )
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-_SEED, lt=_SEED)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100, allow_inf_nan=False)
    logit_bias: dict[TokenKey, Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]] | None = None
    bad_words: list[Word] | None = Field(default=None, max_length=1000)
    stop: Stop = None
    stop_token_ids: list[TokenId] | None = Field(default=None, max_length=1000)
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    ignore_eos: bool | None = Field(default=None, description="Continue after an end-of-sequence token.")
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    truncate_prompt_tokens: int | None = Field(default=None, ge=-1)
    truncation_side: Literal["left", "right"] | None = None
    add_special_tokens: bool | None = None
    prompt_logprobs: Logprobs | None = None

    @field_validator("lora", mode="before")
    @classmethod
    def _is_llama_cpps(cls, lora: object) -> object:
        if lora is not None and not isinstance(lora, list):
            raise ValueError(f'must be [{{"id": 0, "scale": 1.0}}], got {shown(lora)}; for a name use adapters')
        return lora

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def form(self) -> AnswerForm | None:
        """The form that the answer must have; None for any text.

        Raises:
            RequestError: Two fields ask for one, or it is no JSON.
        """
        return form_of(self.response_format, self.structured_outputs)

    @property
    def text_rules(self) -> TextRules:
        """How the tokens of the answer become its text."""
        return TextRules(
            stops=self.stops,
            keep_stop=bool(self.include_stop_str_in_output),
            keep_special=self.skip_special_tokens is False,
            min_tokens=self.min_tokens or 0,
        )

    def sampling(
        self,
        index: int,
        *,
        defaults: Sampling,
        logprobs: int | None = None,
        grammar: Grammar | None = None,
        bans: Bans | None = None,
    ) -> Sampling:
        """Returns the sampling of choice `index`; each choice of a seeded request has its own seed.

        Args:
            defaults: What counts where the request says nothing.
        """
        given: dict[str, Any] = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": None if self.top_k is None else max(self.top_k, 0),
            "min_p": self.min_p,
            "repetition_penalty": self.repetition_penalty,
            "presence_penalty": self.presence_penalty,
            "frequency_penalty": self.frequency_penalty,
        }
        return replace(
            defaults,
            **{name: value for name, value in given.items() if value is not None},
            seed=None if self.seed is None else (self.seed + index) % _SEED,
            logit_bias={int(token): bias for token, bias in (self.logit_bias or {}).items()},
            min_tokens=self.min_tokens or 0,
            logprobs=logprobs,
            grammar=grammar,
            bans=bans,
        )


class CompletionRequest(GenerationRequest):
    """Body of POST /v1/completions."""

    endpoint = TEXT

    prompt: str | list[str] | list[int] | list[list[int]]
    max_tokens: int | None = Field(default=None, ge=0, description="16 if not given; 0 computes the prompt alone.")
    logprobs: Logprobs | None = None
    echo: bool | None = None
    best_of: int | None = Field(default=None, ge=1, le=_MAX_N)


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

    endpoint = CHAT

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: Logprobs | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = Field(default=None, max_length=100)
    tools: list[Tool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: ToolChoiceField = None
    parallel_tool_calls: bool | None = None
    functions: list[Any] | None = Field(default=None, description="Must be empty: use tools.")

    @property
    def template_options(self) -> dict[str, Any]:
        """How the chat template is used, with its variables.

        Raises:
            RequestError: The request contradicts itself, or names a variable that is none.
        """
        if self.add_generation_prompt and self.continue_final_message:
            message = "add_generation_prompt must be false where continue_final_message is true"
            raise RequestError(message, param="add_generation_prompt")
        variables = self.chat_template_kwargs or {}
        if wrong := sorted(_NO_VARIABLES & set(variables)):
            message = f"chat_template_kwargs must not have '{wrong[0]}', which is no variable of a template"
            raise RequestError(message, param="chat_template_kwargs")
        goes_on = bool(self.continue_final_message)
        begins = not goes_on if self.add_generation_prompt is None else self.add_generation_prompt
        effort = {} if self.reasoning_effort is None else {"reasoning_effort": self.reasoning_effort}
        return {**effort, **variables, "add_generation_prompt": begins, "continue_final_message": goes_on}

    @field_validator("functions")
    @classmethod
    def _is_empty(cls, functions: list[Any] | None) -> list[Any] | None:
        if functions:  # a client that offers them waits for calls that would never come in this form
            raise ValueError("must be empty: give the functions as tools instead")
        return functions
