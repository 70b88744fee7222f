"""The syntax tree of a CEL expression, macros expanded, as plain records: read from what the CEL runtime serialises.

The runtime shows no tree itself, and no package brings the classes of its message. Nothing is evaluated here.

Source: https://github.com/google/cel-spec/blob/master/proto/cel/expr/syntax.proto
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

__all__ = ["Call", "Constant", "Fold", "Ident", "ListOf", "Node", "Select", "read_tree"]


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal. Attributes: kind: "string", "int", "bool", ... size: of its text, 1 for others."""

    kind: str
    size: int = 1


@dataclass(frozen=True, slots=True)
class Ident:
    """A variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Select:
    """A field of a value; with `asks` only whether it is there, which is `has()`."""

    operand: Node
    field: str
    asks: bool


@dataclass(frozen=True, slots=True)
class Call:
    """A function or an operator; a method's target is the first argument."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list that the expression makes."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Fold:
    """A loop over a list or the keys of a mapping, which macros become."""

    variable: str
    over: Node
    accumulator: str
    start: Node
    condition: Node
    step: Node
    result: Node


Node = Constant | Ident | Select | Call | ListOf | Fold
Message = dict[int, list[Any]]

_CONSTANTS = {1: "null", 2: "bool", 3: "int", 4: "uint", 5: "double", 6: "string", 7: "bytes"}


def read_tree(serialised: bytes) -> Node:
    """The tree of an expression that the runtime has serialised.

    Raises:
        ValueError: It holds what is not known here, e.g. a message of its own.
    """
    checked = _message(_message(serialised)[2][0])
    return _node(checked[4][0])


def _node(data: bytes) -> Node:
    expression = _message(data)
    if 3 in expression:
        ((number, (value, *_)), *_) = _message(expression[3][0]).items()
        return Constant(_CONSTANTS[number], len(value) if isinstance(value, bytes) and number in (6, 7) else 1)
    if 4 in expression:
        return Ident(_text(_message(expression[4][0]), 1))
    if 5 in expression:
        select = _message(expression[5][0])
        return Select(_node(select[1][0]), _text(select, 2), bool(select.get(3, [0])[0]))
    if 6 in expression:
        call = _message(expression[6][0])
        return Call(_text(call, 2), tuple(_node(part) for part in (*call.get(1, ()), *call.get(3, ()))))
    if 7 in expression:
        return ListOf(tuple(_node(item) for item in _message(expression[7][0]).get(1, ())))
    if 9 in expression:
        fold = _message(expression[9][0])
        over, start, condition, step, result = (_node(fold[number][0]) for number in (2, 4, 5, 6, 7))
        return Fold(_text(fold, 1), over, _text(fold, 3), start, condition, step, result)
    raise ValueError(f"an expression of an unknown kind: fields {sorted(expression)}")


def _text(message: Message, number: int) -> str:
    return bytes(message[number][0]).decode()


def _message(data: bytes) -> Message:
    """The fields of a message in protobuf's wire format, by number."""
    fields: Message = defaultdict(list)
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
        else:
            length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + length], at + length
        fields[tag >> 3].append(value)
    return fields


def _varint(data: bytes, at: int) -> tuple[Any, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
