"""The parts of request bodies that are about tools: what is offered, what must be called, what was called.

What is made of them for a model, its prompt and its grammar, is in `tool_plan`.
"""

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator

from kaito_core.api.messages import shown

__all__ = ["MAX_TOOLS", "CalledFunction", "FunctionSpec", "Tool", "ToolCall", "ToolChoice", "ToolChoiceField"]

MAX_TOOLS = 128  #: OpenAI's limit
_MAX_DEPTH = 64  # of a schema; a deeper one is no description that a model could read
_NAME = r"^[a-zA-Z0-9_.-]{1,128}$"


class FunctionSpec(BaseModel):
    """A function that the model may call."""

    model_config = ConfigDict(strict=True, extra="ignore")

    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = Field(
        default=None, description="A JSON schema of type 'object'; calls that the request demands always follow it."
    )
    strict: bool | None = None

    @field_validator("parameters")
    @classmethod
    def _describes_an_object(cls, schema: dict[str, Any] | None) -> dict[str, Any] | None:
        if not schema:
            return None
        if schema.get("type", "object") != "object":
            raise ValueError(f"must be a JSON schema of type 'object', got type {shown(schema['type'])}")
        if not isinstance(schema.get("properties", {}), dict):
            raise ValueError(f"must have properties that are an object, got {shown(schema['properties'])}")
        if _depth(schema) > _MAX_DEPTH:
            raise ValueError(f"must be nested at most {_MAX_DEPTH} levels deep")
        return schema

    def schema_of_arguments(self) -> dict[str, Any]:
        """Returns the schema of the arguments. Properties that it does not name are not asked for."""
        schema: dict[str, Any] = {"type": "object", "properties": {}} | (self.parameters or {})
        if not {"additionalProperties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref"} & set(schema):
            schema["additionalProperties"] = False
        return schema


class Tool(BaseModel):
    """A tool; functions are the only ones."""

    model_config = ConfigDict(strict=True, extra="ignore")

    type: Literal["function"]
    function: FunctionSpec


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """What `tool_choice` says.

    Attributes:
        mode: Whether the model may call, must not, or must.
        names: The tools that it may choose from; None for all.
    """

    mode: Literal["auto", "none", "required"]
    names: tuple[str, ...] | None = None


_FORMS = """must be 'auto', 'none', 'required' or {"type": "function", "function": {"name": ...}}"""


def _choice(value: object) -> object:
    match value:
        case "auto" | "none" | "required":
            return ToolChoice(value)
        case {"type": "function", "function": {"name": str(name)}}:
            return ToolChoice("required", (name,))
        case {"type": "allowed_tools", "allowed_tools": {"mode": "auto" | "required" as mode, "tools": list(tools)}}:
            names = [_choice(tool) for tool in tools]
            if all(isinstance(name, ToolChoice) and name.names for name in names):
                return ToolChoice(mode, tuple(name.names[0] for name in names))  # type: ignore[attr-defined]
        case None | ToolChoice():
            return value
    raise ValueError(f"{_FORMS}, got {shown(value)}")


ToolChoiceField = Annotated[
    Any,
    BeforeValidator(_choice),
    WithJsonSchema({"anyOf": [{"enum": ["auto", "none", "required"]}, {"type": "object"}, {"type": "null"}]}),
]


class CalledFunction(BaseModel):
    """The function that an earlier answer called."""

    model_config = ConfigDict(strict=True, extra="ignore")

    name: str = Field(min_length=1)
    arguments: Annotated[dict[str, Any], BeforeValidator(lambda value: _arguments(value))] = Field(
        default_factory=dict, description="JSON, as a text.", json_schema_extra={"type": "string"}
    )


class ToolCall(BaseModel):
    """A call of an earlier answer."""

    model_config = ConfigDict(strict=True, extra="ignore")

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction


def _arguments(value: object) -> object:
    """Reads arguments, which are JSON in a text; some clients send none where there are none."""
    if not isinstance(value, str):
        return value
    try:
        read = json.loads(value) if value.strip() else {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"must be a JSON object in a text, got {shown(value)}: {error}") from error
    if not isinstance(read, dict):
        raise ValueError(f"must be a JSON object in a text, got {shown(value)}")
    return read


def _depth(value: object, above: int = 0) -> int:
    """Returns how deeply lists and objects are nested, up to just above the limit."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if above > _MAX_DEPTH:
        return above
    return max((_depth(each, above + 1) for each in inner), default=above)
