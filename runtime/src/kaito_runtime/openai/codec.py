"""Text to tokens and back: the protocol `TextCodec`, and the codec over a transformers tokenizer."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

from kaito_runtime.engine.protocol import Grammar
from kaito_runtime.errors import RequestError
from kaito_runtime.model.tool_formats import ToolFormat
from kaito_runtime.openai.grammar import Grammars, JsonGrammar

__all__ = ["HuggingFaceCodec", "TextCodec"]


class TextCodec(Protocol):
    """Turns text into tokens and back."""

    @property
    def chat_template(self) -> str:
        """The text of the model's chat template; "" where it has none."""

    @property
    def special(self) -> Mapping[int, str]:
        """The text of each special token."""

    @property
    def tool_formats(self) -> Sequence[ToolFormat]:
        """Formats of tool calls that the model's recipe brings."""

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Returns the tokens of a text.

        Args:
            special: Whether the special tokens are put in front that the model needs there.
        """

    def render_chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """Returns a conversation as the model's chat template writes it, ready for the assistant's turn.

        Args:
            tools: Tools that the template shows to the model, in OpenAI's form.

        Raises:
            RequestError: The model has no chat template, or it refuses these messages (400).
        """

    def grammar(self, schema: Mapping[str, Any]) -> Grammar:
        """Returns the grammar of answers that follow a JSON schema. Takes up to a second; threads may share it.

        Raises:
            RequestError: The schema is invalid, or this tokenizer does not support grammars (400).
        """

    def call_grammar(self, lark: str, param: str) -> Grammar:
        """Returns the grammar that a text in Lark's notation describes.

        Raises:
            RequestError: It is invalid, or this tokenizer does not support grammars (400); names `param`.
        """

    def decode(self, tokens: Sequence[int], kept: Collection[int] = ()) -> str:
        """Returns the text of tokens; "\ufffd" stands for incomplete characters.

        Args:
            kept: Special tokens whose text is kept; that of others is left out.
        """


class HuggingFaceCodec:
    """Text to tokens and back with a transformers tokenizer and its chat template.

    Args:
        end_tokens: Tokens that end a sequence.
        tool_formats: Formats of tool calls that the model's recipe brings.
    """

    def __init__(
        self, tokenizer: Any, end_tokens: Collection[int] = (), tool_formats: Sequence[ToolFormat] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._grammars = Grammars(tokenizer, end_tokens)
        self.tool_formats = tool_formats

    @property
    def chat_template(self) -> str:
        """See `TextCodec.chat_template`."""
        if not self._tokenizer.chat_template:
            return ""
        return str(self._tokenizer.get_chat_template(tools=[{}]))  # of several, the one for tools

    @cached_property
    def special(self) -> Mapping[int, str]:
        """See `TextCodec.special`."""
        added = self._tokenizer.added_tokens_decoder
        return {token: str(entry.content) for token, entry in added.items() if entry.special}

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """See `TextCodec.encode`."""
        return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def render_chat(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """See `TextCodec.render_chat`."""
        if not self._tokenizer.chat_template:
            raise RequestError(
                "messages: this model has no chat template; use /v1/completions",
                code="no_chat_template",
                param="messages",
            )
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages), tools=list(tools) or None, add_generation_prompt=True, tokenize=False
                )
            )
        except Exception as error:  # a template is a program, and may raise anything for messages it does not support
            raise RequestError(
                f"messages: the model's chat template refuses them: {error}", param="messages"
            ) from error

    def grammar(self, schema: Mapping[str, Any]) -> JsonGrammar:
        """See `TextCodec.grammar`."""
        return self._grammars.compile(schema)

    def call_grammar(self, lark: str, param: str) -> JsonGrammar:
        """See `TextCodec.call_grammar`."""
        return self._grammars.compile_lark(lark, param)

    def decode(self, tokens: Sequence[int], kept: Collection[int] = ()) -> str:
        """See `TextCodec.decode`."""
        if kept and not set(kept).isdisjoint(tokens):
            parts = itertools.groupby(tokens, key=lambda token: token in kept)
            return "".join(
                str(self._tokenizer.decode(list(part), skip_special_tokens=not shown)) for shown, part in parts
            )
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))
