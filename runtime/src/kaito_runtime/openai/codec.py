"""Text to tokens and back: `TextCodec` over a transformers tokenizer."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from kaito_runtime.errors import RequestError
from kaito_runtime.openai.grammar import Grammars, JsonGrammar

__all__ = ["HuggingFaceCodec"]


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
