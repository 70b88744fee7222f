"""Text to tokens and back: the protocol `TextCodec`, and the codec over a transformers tokenizer."""

import itertools
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from kaito_runtime.engine.protocol import Bans, Grammar
from kaito_runtime.errors import RequestError
from kaito_runtime.model.tool_formats import ToolFormat
from kaito_runtime.openai.fields.forms import AnswerForm
from kaito_runtime.openai.grammar import FormGrammar, Grammars
from kaito_runtime.openai.vocabulary import BannedTexts, Vocabulary

__all__ = ["HuggingFaceCodec", "TextCodec"]

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


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

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        template: str = "",
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> str:
        """Returns a conversation as a chat template writes it, ready for the assistant's turn.

        Args:
            tools: Tools that the template shows to the model, in OpenAI's form.
            template: The template; "" takes the model's.
            options: Whether to add the beginning of the assistant's turn or to go on with the last message, as
                `apply_chat_template` names them, and variables of the template.

        Raises:
            RequestError: The model has no chat template, or it refuses these messages (400).
        """

    def grammar(self, form: AnswerForm) -> Grammar:
        """Returns the grammar of answers of a form. Takes up to a second; threads may share it.

        Raises:
            RequestError: The form is invalid, or this tokenizer does not support grammars (400).
        """

    def bans(self, words: Sequence[str]) -> Bans:
        """Returns what keeps texts out of an answer. Takes up to a second; threads may share it."""

    def decode(self, tokens: Sequence[int], kept: Collection[int] = ()) -> str:
        """Returns the text of tokens; "\ufffd" stands for incomplete characters.

        Args:
            kept: Special tokens whose text is kept; that of others is left out.
        """

    def token_bytes(self, token: int) -> bytes:
        """Returns the text of a single token, special or not, which may be a part of a character."""


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
        self._vocabulary = Vocabulary(tokenizer)
        self.tool_formats = tool_formats

    @property
    def chat_template(self) -> str:
        """See `TextCodec.chat_template`."""
        if not self._tokenizer.chat_template:
            return ""
        return str(self._tokenizer.get_chat_template(tools=[{}]))  # of several, the one for tools

    @property
    def special(self) -> Mapping[int, str]:
        """See `TextCodec.special`."""
        return self._vocabulary.special

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """See `TextCodec.encode`."""
        return list(self._tokenizer(text, add_special_tokens=special)["input_ids"])

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        template: str = "",
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> str:
        """See `TextCodec.render_chat`."""
        if not template and not self._tokenizer.chat_template:
            raise RequestError(
                "messages: this model has no chat template; use /v1/completions, or start the server with "
                "--chat-template",
                code="no_chat_template",
                param="messages",
            )
        asked = {"add_generation_prompt": True, **options, "tools": list(tools) or None, "tokenize": False}
        try:
            return str(self._tokenizer.apply_chat_template(list(messages), chat_template=template or None, **asked))
        except Exception as error:  # a template is a program, and may raise anything for messages it does not support
            raise RequestError(
                f"messages: the model's chat template refuses them: {error}", param="messages"
            ) from error

    def grammar(self, form: AnswerForm) -> FormGrammar:
        """See `TextCodec.grammar`."""
        return self._grammars.compile(form)

    def bans(self, words: Sequence[str]) -> BannedTexts:
        """See `TextCodec.bans`."""
        return self._vocabulary.bans(words)

    def decode(self, tokens: Sequence[int], kept: Collection[int] = ()) -> str:
        """See `TextCodec.decode`."""
        if kept and not set(kept).isdisjoint(tokens):
            parts = itertools.groupby(tokens, key=lambda token: token in kept)
            return "".join(
                str(self._tokenizer.decode(list(part), skip_special_tokens=not shown)) for shown, part in parts
            )
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))

    def token_bytes(self, token: int) -> bytes:
        """See `TextCodec.token_bytes`."""
        return self._vocabulary.token_bytes(token)
