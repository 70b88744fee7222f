"""The form that an answer must have: `response_format` and `structured_outputs`, in the ways that clients write them.

`grammar` compiles it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kaito_core.api.messages import shown
from kaito_runtime.errors import RequestError

__all__ = ["AnswerForm", "ResponseFormat", "StructuredOutputs", "closed", "form_of"]

Kind = Literal["json", "regex", "choice", "grammar", "lark"]
_MOST_CHOICES = 1000
_OBJECT: dict[str, Any] = {"type": "object"}
_SCHEMA_PARAM = "response_format.json_schema.schema"


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What every answer must be like.

    Attributes:
        kind: How it is described.
        value: A JSON schema, a regular expression, a tuple of texts, a grammar in Lark's or llama.cpp's notation, or
            one in Lark's that is our own.
        param: The field of the request that it is from, for messages.
    """

    kind: Kind
    value: Any
    param: str = _SCHEMA_PARAM


class JsonSchema(BaseModel):
    """The JSON schema of the answer, in OpenAI's wrapping."""

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str | None = None
    description: str | None = None
    body: dict[str, Any] = Field(
        alias="schema", description="A JSON schema. It is always enforced, with or without `strict`."
    )
    strict: bool | None = Field(
        default=None,
        description="Unless false, objects have no properties but those that the schema names or opens them for.",
    )


class ResponseFormat(BaseModel):
    """The form of the answer: any text, any JSON object, JSON by a schema, or text by a regular expression."""

    model_config = ConfigDict(strict=True, extra="forbid")

    type: Literal["text", "json_object", "json_schema", "json", "regex"] = Field(
        description="json and regex are TGI's words for what `value` has."
    )
    json_schema: JsonSchema | None = None
    body: dict[str, Any] | None = Field(
        default=None, alias="schema", description="The schema beside the type, as llama.cpp and LoRAX have it."
    )
    value: dict[str, Any] | str | None = Field(default=None, description="The schema or expression, as TGI has it.")

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None and self.body is None:
            raise ValueError("must have the field json_schema with a schema, since its type is 'json_schema'")
        if self.type == "json" and not isinstance(self.value, dict):
            raise ValueError("must have a schema in value, since its type is 'json'")
        if self.type == "regex" and not isinstance(self.value, str):
            raise ValueError("must have a regular expression in value, since its type is 'regex'")
        return self

    def form(self) -> AnswerForm | None:
        """Returns the form; None for any text."""
        if self.type == "text":
            return None
        if self.type == "regex":
            return AnswerForm("regex", self.value, "response_format.value")
        if self.type == "json":
            return AnswerForm("json", closed(self.value, "response_format.value"), "response_format.value")
        if self.json_schema is not None and self.type == "json_schema":
            schema = self.json_schema.body
            return AnswerForm("json", schema if self.json_schema.strict is False else closed(schema, _SCHEMA_PARAM))
        if self.body is not None:
            return AnswerForm("json", closed(self.body, "response_format.schema"), "response_format.schema")
        return AnswerForm("json", _OBJECT)


class StructuredOutputs(BaseModel):
    """vLLM's limits of the answer: exactly one of the first five."""

    model_config = ConfigDict(strict=True, extra="forbid", protected_namespaces=())

    json_: dict[str, Any] | str | None = Field(default=None, alias="json", description="A JSON schema.")
    json_object: bool | None = None
    regex: str | None = Field(default=None, max_length=100_000)
    choice: list[Annotated[str, Field(min_length=1)]] | None = Field(
        default=None, min_length=1, max_length=_MOST_CHOICES
    )
    grammar: str | None = Field(default=None, description="A context-free grammar, in Lark's or llama.cpp's notation.")
    disable_any_whitespace: bool | None = Field(default=None, description="Ignored: JSON is written on one line.")
    disable_fallback: bool | None = Field(default=None, description="Ignored: there is one way to enforce it.")
    disable_additional_properties: bool | None = Field(
        default=None, description="False leaves objects open that the schema does not close."
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        given = [name for name, value in self._limits().items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"must have one of {', '.join(self._limits())}, got {' and '.join(given)}")
        return self

    def _limits(self) -> dict[str, Any]:
        return {
            "json": self.json_,
            "json_object": self.json_object or None,
            "regex": self.regex,
            "choice": self.choice,
            "grammar": self.grammar,
        }

    def form(self) -> AnswerForm | None:
        """Returns the form; None where it limits nothing.

        Raises:
            RequestError: The schema is a string that is not the JSON of an object.
        """
        if self.json_ is not None:
            param = "structured_outputs.json"
            schema = _parsed(self.json_, param)
            return AnswerForm(
                "json", schema if self.disable_additional_properties is False else closed(schema, param), param
            )
        if self.json_object:
            return AnswerForm("json", _OBJECT, "structured_outputs.json_object")
        if self.regex is not None:
            return AnswerForm("regex", self.regex, "structured_outputs.regex")
        if self.choice is not None:
            return AnswerForm("choice", tuple(self.choice), "structured_outputs.choice")
        if self.grammar is not None:
            return AnswerForm("grammar", self.grammar, "structured_outputs.grammar")
        return None


def form_of(response_format: ResponseFormat | None, structured: StructuredOutputs | None) -> AnswerForm | None:
    """Returns the form that a request's two fields ask for; None for any text.

    Raises:
        RequestError: Both do.
    """
    first = None if response_format is None else response_format.form()
    second = None if structured is None else structured.form()
    if first is not None and second is not None:
        message = "structured_outputs must be absent where response_format asks for a form"
        raise RequestError(message, param="structured_outputs")
    return first or second


def closed(schema: Any, param: str) -> Any:
    """Returns a schema whose objects have no properties but those that it names, as in OpenAI's strict mode.

    An object stays as it is where the schema says what other properties it has, where it names none, or where other
    keywords add to it: parts of `allOf` that are all closed would exclude one another.

    Raises:
        RequestError: The schema is nested too deeply.
    """
    try:
        return _closed(schema)
    except RecursionError as error:
        raise RequestError(f"{param} must be nested less deeply", param=param) from error


_OPENERS = {
    "additionalProperties",
    "unevaluatedProperties",
    "patternProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "$ref",
    "if",
}


def _closed(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    result = dict(schema)
    for name, value in schema.items():
        if name in ("properties", "$defs", "definitions", "patternProperties") and isinstance(value, Mapping):
            result[name] = {key: _closed(each) for key, each in value.items()}
        elif name == "prefixItems" or (name in ("anyOf", "oneOf") and "properties" not in schema):
            result[name] = [_closed(each) for each in value] if isinstance(value, list) else value
        elif name in ("items", "additionalProperties"):
            result[name] = _closed(value)
    if isinstance(schema.get("properties"), Mapping) and not _OPENERS & set(schema):
        result["additionalProperties"] = False
    return result


def _parsed(schema: dict[str, Any] | str, param: str) -> dict[str, Any]:
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{param} must be a JSON schema: {error}", param=param) from error
    if not isinstance(schema, dict):
        raise RequestError(f"{param} must be a JSON schema, an object, got {shown(schema)}", param=param)
    return schema
