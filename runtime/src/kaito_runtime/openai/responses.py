"""The body of POST /v1/responses, and the chat request that it stands for. Nothing is stored, so no earlier response
can be named. What is sent back is in `response_events`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from kaito_core.api.messages import shown
from kaito_runtime.errors import RequestError, validation_message
from kaito_runtime.openai.requests import AdapterChoice, Body, ChatRequest
from kaito_runtime.openai.tools import MAX_TOOLS, FunctionSpec

__all__ = ["ResponsesRequest"]

# The same in both bodies.
_SAME = ("model", "adapters", "stream", "temperature", "top_p", "top_k", "min_p", "seed", "stop", "parallel_tool_calls")
_STORED = "nothing is stored here: send the items of the conversation so far in input"
_TEXT_PARTS = {"input_text", "output_text", "text", "summary_text", "reasoning_text"}


def _absent(why: str) -> BeforeValidator:
    def check(value: object) -> None:
        if value:
            raise ValueError(f"must be absent, got {shown(value)}: {why}")

    return BeforeValidator(check)


class FunctionTool(FunctionSpec):
    """A function that the model may call; its fields stand beside its type."""

    type: Literal["function"]


class TextFormat(BaseModel):
    """The form of the answer's text."""

    model_config = ConfigDict(strict=True, extra="ignore")

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    description: str | None = None
    strict: bool | None = None
    body: dict[str, Any] | None = Field(default=None, alias="schema")


class TextOptions(BaseModel):
    """Options of the answer's text. `verbosity` is a hint that no model here reads."""

    model_config = ConfigDict(strict=True, extra="ignore")

    format: TextFormat | None = None


class ResponsesRequest(Body):
    """Body of POST /v1/responses. Unknown fields are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())

    model: str
    input: Annotated[str | list[dict[str, Any]], Field(min_length=1)]
    instructions: str | None = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    max_output_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    top_p: float | None = Field(default=None, gt=0, le=1, allow_inf_nan=False)
    stream: bool | None = None
    metadata: dict[str, Any] | None = Field(default=None, description="Sent back as it is.")
    adapters: list[AdapterChoice] | None = Field(
        default=None,
        description="Adapters of this request, instead of those of the model id. An empty list is the base model.",
    )
    top_k: int | None = Field(default=None, ge=-1)
    min_p: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: list[str] | str | None = None
    # Without an effect on the answer.
    store: bool | None = Field(default=None, description="Ignored: nothing is stored.")
    user: str | None = None
    include: list[str] | None = None
    reasoning: dict[str, Any] | None = Field(default=None, description="Ignored: no model here has levels of effort.")
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    stream_options: dict[str, Any] | None = None
    max_tool_calls: int | None = Field(default=None, description="Ignored: only clients call tools.")
    truncation: Literal["disabled"] | None = None
    # With one that there is not here.
    previous_response_id: Annotated[str | None, _absent(_STORED)] = None
    conversation: Annotated[Any, _absent(_STORED)] = None
    background: Annotated[bool | None, _absent(_STORED)] = None
    prompt: Annotated[Any, _absent("there are no prompt templates here")] = None
    top_logprobs: Annotated[int | None, _absent("ask /v1/chat/completions for them")] = None

    @field_validator("tool_choice")
    @classmethod
    def _in_the_form_of_chat(cls, choice: Any) -> Any:
        match choice:
            case {"type": "function", "name": str(name)}:
                return {"type": "function", "function": {"name": name}}
            case {"type": "allowed_tools", "mode": mode, "tools": list(tools)}:
                named = [cls._in_the_form_of_chat(tool) for tool in tools]
                return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": named}}
            case None | "auto" | "none" | "required":
                return choice
        raise ValueError(
            f"must be 'auto', 'none', 'required' or {{\"type\": \"function\", \"name\": ...}}, got {shown(choice)}"
        )

    def as_chat(self) -> ChatRequest:
        """Returns the chat request that this one stands for.

        Raises:
            RequestError: An item of `input` cannot be served (400).
        """
        body: dict[str, Any] = {name: getattr(self, name) for name in _SAME if getattr(self, name) is not None}
        if self.adapters is not None:
            body["adapters"] = [choice.model_dump(exclude_unset=True) for choice in self.adapters]
        body["messages"] = _messages(self.instructions, self.input)
        body["max_completion_tokens"] = self.max_output_tokens
        body["tool_choice"] = self.tool_choice
        if self.tools:
            functions = [tool.model_dump(exclude_none=True, exclude={"type"}) for tool in self.tools]
            body["tools"] = [{"type": "function", "function": function} for function in functions]
        form = self.text.format if self.text else None
        if form is not None and form.type != "text":
            body["response_format"] = {"type": form.type}
            if form.type == "json_schema":
                schema = {"name": form.name or "answer", "schema": form.body}
                body["response_format"]["json_schema"] = schema
        try:
            return ChatRequest.model_validate({name: value for name, value in body.items() if value is not None})
        except ValidationError as error:
            fault = error.errors()[0]
            field = _FIELDS.get(str(fault["loc"][0]), str(fault["loc"][0]))
            raise RequestError(f"{field} {validation_message(fault)}", param=field) from error


_FIELDS = {"messages": "input", "response_format": "text.format", "max_completion_tokens": "max_output_tokens"}


def _messages(instructions: str | None, items: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    if isinstance(items, str):
        return [*messages, {"role": "user", "content": items}]
    for place, item in enumerate(items):
        _add(messages, item, f"input[{place}]")
    return messages


def _add(messages: list[dict[str, Any]], item: Mapping[str, Any], where: str) -> None:
    """Adds an item to the conversation. What the assistant thought, said and called in one turn is one message."""
    kind = item.get("type", "message")
    last = messages[-1] if messages and messages[-1]["role"] == "assistant" else None
    if kind == "message":
        role = item.get("role")
        if role not in ("user", "assistant", "system", "developer"):
            raise _wrong(f"{where}.role", "must be 'user', 'assistant', 'system' or 'developer'", role)
        text = _text(item.get("content"), f"{where}.content")
        if role == "assistant" and last is not None and last["content"] is None and not last.get("tool_calls"):
            last["content"] = text
        else:
            messages.append({"role": role, "content": text})
    elif kind == "function_call":
        for name in ("call_id", "name", "arguments"):
            if not isinstance(item.get(name), str):
                raise _wrong(f"{where}.{name}", "must be a text", item.get(name))
        function = {"name": item["name"], "arguments": item["arguments"]}
        if last is None:
            last = {"role": "assistant", "content": None}
            messages.append(last)
        call = {"id": item["call_id"], "type": "function", "function": function}
        last.setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        if not isinstance(item.get("call_id"), str):
            raise _wrong(f"{where}.call_id", "must be a text", item.get("call_id"))
        text = _text(item.get("output"), f"{where}.output")
        messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": text})
    elif kind == "reasoning":
        text = _text(item.get("content") or item.get("summary") or "", f"{where}.content")
        if text:
            messages.append({"role": "assistant", "content": None, "reasoning_content": text})
    else:
        known = "'message', 'function_call', 'function_call_output' or 'reasoning'"
        raise _wrong(f"{where}.type", f"must be {known}", kind)


def _text(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(where, "must be a text or a list of parts", content)
    texts = []
    for place, part in enumerate(content):
        if not (isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS and isinstance(part.get("text"), str)):
            raise _wrong(f"{where}[{place}]", "must be a part with a text, such as of type 'input_text'", part)
        texts.append(part["text"])
    return "".join(texts)


def _wrong(field: str, rule: str, value: object) -> RequestError:
    return RequestError(f"{field} {rule}, got {shown(value)}", param=field)
