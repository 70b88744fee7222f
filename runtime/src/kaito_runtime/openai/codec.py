"""Text to tokens and back: the protocol `TextCodec`, and the codec over a transformers tokenizer."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from kaito_runtime.engine.protocol import Grammar
from kaito_runtime.errors import RequestError
from kaito_runtime.openai.grammar import Grammars, JsonGrammar

__all__ = ["HuggingFaceCodec", "TextCodec"]


class TextCodec(Protocol):
    """Turns text into tokens and back."""

    def encode(self, text: str) -> list[int]:
        """Returns the tokens of a plain prompt, with the special tokens that the model needs in front."""

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Returns the tokens of a conversation, ready for the assistant's turn.

        Raises:
            RequestError: The model has no chat template, or it refuses these messages (400).
        """

    def grammar(self, schema: Mapping[str, Any]) -> Grammar:
        """Returns the grammar of answers that follow a JSON schema. Takes up to a second; threads may share it.

        Raises:
            RequestError: The schema is invalid, or this tokenizer does not support grammars (400).
        """

    def decode(self, tokens: Sequence[int]) -> str:
        """Returns the text of tokens, without special ones; "\ufffd" stands for incomplete characters."""


class HuggingFaceCodec:
    """Text to tokens and back with a transformers tokenizer and its chat template.

    Args:
        end_tokens: Tokens that end a sequence.
    """

    def __init__(self, tokenizer: Any, end_tokens: Collection[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._grammars = Grammars(tokenizer, end_tokens)

    def encode(self, text: str) -> list[int]:
        """See `TextCodec.encode`."""
        return list(self._tokenizer(text)["input_ids"])

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """See `TextCodec.encode_chat`."""
        if not self._tokenizer.chat_template:
            raise RequestError(
                "messages: this model has no chat template; use /v1/completions",
                code="no_chat_template",
                param="messages",
            )
        try:
            text = self._tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        except Exception as error:  # a template is a program, and may raise anything for messages it does not support
            raise RequestError(
                f"messages: the model's chat template refuses them: {error}", param="messages"
            ) from error
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def grammar(self, schema: Mapping[str, Any]) -> JsonGrammar:
        """See `TextCodec.grammar`."""
        return self._grammars.compile(schema)

    def decode(self, tokens: Sequence[int]) -> str:
        """See `TextCodec.decode`."""
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=True))
