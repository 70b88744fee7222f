"""Answers of a form, such as JSON by a schema: which tokens may come next, computed by llguidance.

`forms` has the fields that ask for it; `engine.sampling` chooses among the tokens that are allowed.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from kaito_runtime.errors import RequestError, one_line
from kaito_runtime.openai.fields.forms import AnswerForm

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

__all__ = ["FormGrammar", "Grammars", "broken_schema"]

_LONGEST_TEXT = 200_000  # characters of an expression or a grammar
# One line, spaced like most JSON that models have seen. With free whitespace, small models write blanks forever.
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammars:
    """Compiles forms for one tokenizer. Threads may share it; the first call takes up to a second.

    Args:
        tokenizer: A fast tokenizer of transformers.
        end_tokens: Tokens that end a sequence; after a complete answer only these are allowed.
    """

    def __init__(self, tokenizer: Any, end_tokens: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._end_tokens = sorted(end_tokens)
        self._lock = threading.Lock()
        self._vocabulary: LLTokenizer | None = None

    def compile(self, form: AnswerForm) -> FormGrammar:
        """Returns the grammar of answers of a form.

        Raises:
            RequestError: The form is invalid, or asks for what cannot be enforced (400).
        """
        with self._lock:
            self._vocabulary = self._vocabulary or self._read_vocabulary(form)
        from llguidance import LLMatcher

        text = _source(form)
        wrong, messages = LLMatcher.validate_grammar_with_warnings(text, self._vocabulary)
        if wrong:
            raise RequestError(f"{form.param}: {messages[0]}", param=form.param)
        matcher = LLMatcher(self._vocabulary, text, log_level=0)
        if matcher.is_error():
            raise RequestError(f"{form.param}: {_first_line(matcher.get_error())}", param=form.param)
        grammar = FormGrammar(matcher)
        first = grammar.start()
        first.allowed()
        if first.stuck:
            raise RequestError(
                f"{form.param}: no answer can follow it; does it only refer to itself?", param=form.param
            )
        return grammar

    def _read_vocabulary(self, form: AnswerForm) -> LLTokenizer:
        try:
            import llguidance.hf

            ends = [token for token in self._end_tokens if token < len(self._tokenizer)]
            return llguidance.hf.from_tokenizer(self._tokenizer, eos_token=ends)
        except (ImportError, ValueError) as error:
            field = "response_format.type" if form.param.startswith("response_format") else form.param
            message = f"{field}: answers of a form are not possible with this model: {_first_line(str(error))}"
            raise RequestError(message, code="not_supported", param=field) from error


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


def _source(form: AnswerForm) -> str:
    """Returns a form in llguidance's notation.

    Raises:
        RequestError: It is invalid, as far as that shows here.
    """
    from llguidance import LLMatcher, grammar_from

    value = form.value
    if form.kind in ("regex", "grammar") and len(value) > _LONGEST_TEXT:
        message = f"{form.param} must have at most {_LONGEST_TEXT} characters, got {len(value)}"
        raise RequestError(message, param=form.param)
    options: Any = _LAYOUT
    try:
        if form.kind == "json":
            return LLMatcher.grammar_from_json_schema(json.dumps(value), overrides=options)
        return grammar_from(form.kind, json.dumps(value) if form.kind == "choice" else value)
    except (ValueError, RecursionError, TypeError) as error:
        what = {"json": "a JSON schema", "grammar": "a grammar in the notation of Lark or llama.cpp"}
        why = str(error) if isinstance(error, ValueError) else one_line(error)
        message = f"{form.param} must be {what.get(form.kind, 'valid')}: {why}"
        raise RequestError(message, param=form.param) from error


class FormGrammar:
    """State of one sequence within a grammar. `Grammars.compile` returns the first state, from which others start."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def start(self) -> FormGrammar:
        """Returns the first state for another sequence."""
        return FormGrammar(self._matcher.deep_copy())

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
