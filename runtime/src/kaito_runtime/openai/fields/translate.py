"""Applies the table of fields to a request's body: nothing that would change the answer is dropped.

A field that is honoured is passed on to the models of `requests`, another spelling is turned into the field that it
stands for, a harmless one is left out. A field that is refused, and one that no server has, is 400 and says what to use
instead; at a value that changes nothing, such as null, each known one is accepted.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any

from kaito_core.api.messages import clipped, shown
from kaito_runtime.errors import RequestError
from kaito_runtime.openai.fields.table import FIELDS, Does, Endpoint, FieldRule, rules_of

__all__ = ["translate"]

_BASE_OF_LORAX = "__base_model__"


def translate(body: Mapping[str, Any], endpoint: Endpoint) -> dict[str, Any]:
    """Returns a body whose fields are all honoured.

    Raises:
        RequestError: A field is unknown or refused, or two fields say the same thing (400).
    """
    rules = rules_of(endpoint)
    result: dict[str, Any] = {}
    said_by: dict[str, str] = {}
    for name, value in body.items():
        rule = rules.get(name)
        if value is None:
            continue
        if rule is None:
            raise _unknown(name, rules)
        if rule.does is Does.HARMLESS or _is_neutral(value, rule):
            continue
        if rule.does is Does.REFUSED:
            message = f"{clipped(name)} is not served here, got {shown(value)}: {rule.meaning}"
            raise RequestError(message, code="unsupported_parameter", param=name)
        target, meant = (name, value) if rule.does is Does.HONOURED else _spell_out(rule, value)
        if target in said_by and said_by[target] != name:
            message = f"{name} must be absent where {said_by[target]} is given: both mean {target}"
            raise RequestError(message, param=name)
        said_by[target] = name
        result[target] = meant
    return result


def _unknown(name: str, rules: Mapping[str, FieldRule]) -> RequestError:
    # OpenAI's words, for clients that look for them.
    words = f"Unrecognized request argument supplied: {clipped(name)}"
    useful = [rule.name for rule in rules.values() if rule.does is not Does.REFUSED]
    near = difflib.get_close_matches(name[:100], useful, 1)
    if not near and any(word in name.lower() for word in ("lora", "adapter")):
        near = ["adapters"]
    advice = f"; did you mean '{near[0]}'?" if near else "; leave it out"
    if any(rule.name == name for rule in FIELDS):
        advice = "; it is one of the other endpoint"
    message = f"{words}. It is no field of this endpoint{advice}"
    return RequestError(message, code="unknown_parameter", param=clipped(name))


def _is_neutral(value: object, rule: FieldRule) -> bool:
    """Returns whether a value is one that changes nothing. Unlike Python, tells true from 1."""
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in rule.neutral)


def _spell_out(rule: FieldRule, value: object) -> tuple[str, Any]:
    """Returns the field that another spelling stands for, and its value."""
    if rule.meaning == "adapters":
        return "adapters", _ADAPTERS[rule.name](rule.name, value)
    field, _, kind = rule.meaning.partition(".")
    if not kind:
        return field, value
    if rule.name == "grammar" and isinstance(value, Mapping):  # TGI's
        kind, value = str(value.get("type", "")), value.get("value")
        if kind not in ("json", "regex"):
            raise RequestError(f"grammar.type must be 'json' or 'regex', got {shown(kind)}", param="grammar.type")
    return field, {kind: value}


def _adapter_names(name: str, value: object) -> list[dict[str, Any]]:
    """Returns what TGI's, LoRAX's and SGLang's fields mean: one adapter, at its declared strength."""
    names = value if isinstance(value, list) else [value]
    # SGLang's list has an adapter for each prompt, TGI's text may have several separated by commas.
    if len(names) != 1 or not isinstance(names[0], str) or not names[0] or "," in names[0]:
        raise _use_adapters(name, value)
    return [] if names[0] == _BASE_OF_LORAX else [{"name": names[0]}]


def _lora_request(name: str, value: object) -> list[dict[str, Any]]:
    """Returns what vLLM's LoRARequest means."""
    return _adapter_names(name, value.get("lora_name") if isinstance(value, Mapping) else value)


_ADAPTERS: dict[str, Callable[[str, object], list[dict[str, Any]]]] = {
    "adapter_id": _adapter_names,
    "lora_path": _adapter_names,
    "lora_adapter": _adapter_names,
    "lora_request": _lora_request,
}


def _use_adapters(name: str, value: object) -> RequestError:
    message = f'{name} must be the name of one adapter, got {shown(value)}; for more use adapters: [{{"name": ...}}]'
    return RequestError(message, param=name)
