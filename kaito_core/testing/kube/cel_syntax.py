"""Syntax of the part of CEL that validation rules of CRDs use: text becomes a tree of tuples. No evaluation here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

__all__ = ["Node", "UnsupportedRule", "parse"]

Node = tuple[Any, ...]

_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+\.\d+|\d+)|(?P<string>r?'(?:\\.|[^'\\])*'|r?"(?:\\.|[^"\\])*")"""
    r"""|(?P<name>[A-Za-z_]\w*)|(?P<op>&&|\|\||==|!=|<=|>=|\[\?|\.\?|[-+*/%!<>?:.,()\[\]{}]))"""
)
_LEVELS = (("||",), ("&&",), ("==", "!=", "<=", ">=", "<", ">", "in"), ("+", "-"), ("*", "/", "%"))


class UnsupportedRule(Exception):
    """The expression uses something that this evaluator does not know."""


@lru_cache(maxsize=1024)
def parse(text: str) -> Node:
    """The expression's syntax tree.

    Raises:
        UnsupportedRule: Where it cannot be parsed.
    """
    parser = _Parser(list(_tokens(text)))
    node = parser.ternary()
    if parser.peek() is not None:
        raise UnsupportedRule(f"cannot parse {text!r} at {parser.peek()!r}")
    return node


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at, text = 0, text.strip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            raise UnsupportedRule(f"cannot read {text[at : at + 20]!r}")
        yield found.lastgroup, found[found.lastgroup]
        at = found.end()


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens, self._at = tokens, 0

    def peek(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None

    def take(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise UnsupportedRule("the expression ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def accept(self, *words: str) -> str | None:
        if self.peek() in words and self._tokens[self._at][0] in ("op", "name"):
            return self.take()[1]
        return None

    def expect(self, word: str) -> None:
        if self.accept(word) is None:
            raise UnsupportedRule(f"expected {word!r}, found {self.peek()!r}")

    def ternary(self) -> Node:
        condition = self.binary(0)
        if self.accept("?") is None:
            return condition
        then = self.ternary()
        self.expect(":")
        return ("if", condition, then, self.ternary())

    def binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self.unary()
        node = self.binary(level + 1)
        while (operator := self.accept(*_LEVELS[level])) is not None:
            node = ("op", operator, node, self.binary(level + 1))
        return node

    def unary(self) -> Node:
        if (operator := self.accept("!", "-")) is not None:
            return ("unary", operator, self.unary())
        return self.postfix(self.primary())

    def postfix(self, node: Node) -> Node:
        while (operator := self.accept(".", ".?", "[", "[?")) is not None:
            if operator.startswith("["):
                node = ("index", node, self.ternary(), operator == "[?")
                self.expect("]")
                continue
            name = self.take()[1]
            if operator == "." and self.accept("("):
                node = ("method", name, node, self.until(")"))
            else:
                plain = name[2:-2] if name.startswith("__") and name.endswith("__") else name
                node = ("select", node, plain, operator == ".?")
        return node

    def primary(self) -> Node:
        kind, text = self.take()
        if kind == "number":
            return ("value", float(text) if "." in text else int(text))
        if kind == "string":
            return ("value", _unquoted(text))
        if text == "(":
            node = self.ternary()
            self.expect(")")
            return node
        if text == "[":
            return ("list", self.until("]"))
        if kind == "name":
            if text in ("true", "false", "null"):
                return ("value", {"true": True, "false": False, "null": None}[text])
            return ("call", text, self.until(")")) if self.accept("(") else ("name", text)
        raise UnsupportedRule(f"cannot parse {text!r}")

    def until(self, end: str) -> tuple[Node, ...]:
        items: list[Node] = []
        while self.accept(end) is None:
            if items:
                self.expect(",")
            items.append(self.ternary())
        return tuple(items)


def _unquoted(text: str) -> str:
    if text.startswith("r"):
        return text[2:-1]
    escapes = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[1]), text[1:-1])
