"""Answers that are JSON or follow a JSON schema: which tokens may come next, computed by llguidance.

`requests` has the field that asks for it; `engine.sampling` chooses among the tokens that are allowed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from kaito_runtime.errors import RequestError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

__all__ = ["Grammars", "JsonGrammar", "broken_schema"]

PARAM = "response_format.json_schema.schema"
# One line, spaced like most JSON that models have seen. With free whitespace, small models write blanks forever.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammars:
    """Compiles JSON schemas for one tokenizer. Threads may share it; the first call takes up to a second.

    Args:
        tokenizer: A fast tokenizer of transformers.
        end_tokens: Tokens that end a sequence; after a complete answer only these are allowed.
    """

    def __init__(self, tokenizer: Any, end_tokens: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._end_tokens = sorted(end_tokens)
        self._lock = threading.Lock()
        self._vocabulary: LLTokenizer | None = None

    def compile(self, schema: Mapping[str, Any]) -> JsonGrammar:
        """Returns the grammar of answers that follow a schema.

        Raises:
            RequestError: The schema is invalid, or has a keyword that cannot be enforced (400).
        """
        from llguidance import LLMatcher

        options: Any = _LAYOUT
        try:
            text = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=options)
        except (ValueError, RecursionError) as error:
            raise RequestError(f"{PARAM} must be a JSON schema: {error}", param=PARAM) from error
        return self._compile(text, PARAM)

    def compile_lark(self, text: str, param: str) -> JsonGrammar:
        """Returns the grammar that a text in Lark's notation describes.

        Raises:
            RequestError: It is invalid, or has a keyword that cannot be enforced (400).
        """
        from llguidance import LLMatcher

        return self._compile(LLMatcher.grammar_from_lark(text), param)

    def _compile(self, text: str, param: str) -> JsonGrammar:
        from llguidance import LLMatcher

        with self._lock:
            self._vocabulary = self._vocabulary or self._read_vocabulary()
        wrong, messages = LLMatcher.validate_grammar_with_warnings(text, self._vocabulary)
        if wrong:
            raise RequestError(f"{param}: {messages[0]}", param=param)
        matcher = LLMatcher(self._vocabulary, text, log_level=0)
        if matcher.is_error():
            raise RequestError(f"{param}: {_first_line(matcher.get_error())}", param=param)
        grammar = JsonGrammar(matcher)
        first = grammar.start()
        first.allowed()
        if first.stuck:
            raise RequestError(f"{param}: no answer can follow it; does it only refer to itself?", param=param)
        return grammar

    def _read_vocabulary(self) -> LLTokenizer:
        try:
            import llguidance.hf

            ends = [token for token in self._end_tokens if token < len(self._tokenizer)]
            return llguidance.hf.from_tokenizer(self._tokenizer, eos_token=ends)
        except (ImportError, ValueError) as error:
            message = f"response_format.type must be 'text' on this server: {_first_line(str(error))}"
            raise RequestError(message, code="not_supported", param="response_format.type") from error


def broken_schema(schema: Mapping[str, Any]) -> str:
    """Returns why a schema is none; "" also for one with a keyword that can only not be enforced."""
    try:
        from llguidance import LLMatcher

        wrong, messages = LLMatcher.validate_grammar_with_warnings(
            LLMatcher.grammar_from_json_schema(json.dumps(schema))
        )
    except ImportError:
        return ""
    except (ValueError, RecursionError) as error:
        return str(error)
    return messages[0] if wrong and not messages[0].startswith(("Unimplemented", "Unknown format")) else ""


class JsonGrammar:
    """State of one sequence within a grammar. `Grammars.compile` returns the first state, from which others start."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def start(self) -> JsonGrammar:
        """Returns the first state for another sequence."""
        return JsonGrammar(self._matcher.deep_copy())

    def allowed(self) -> bytes:
        """Returns a bit per token, 0 where it must not come next. After the end only end tokens may."""
        return self._matcher.compute_bitmask()

    def push(self, token: int) -> None:
        """Adds the token that was chosen."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)

    @property
    def stuck(self) -> str:
        """Why no token can come next, such as a limit of llguidance; "" where one can or the answer is complete."""
        return _first_line(self._matcher.get_error()) if self._matcher.is_error() else ""


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "no reason given"
