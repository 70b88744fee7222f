"""Text to tokens and back by the model's own tokenizer and chat template."""

from pathlib import Path
from typing import Any

import pytest

from kaito_runtime.errors import RequestError
from kaito_runtime.model.load import load_model
from kaito_runtime.openai.codec import HuggingFaceCodec


class Tokenizer:
    chat_template: str | None = None

    def apply_chat_template(self, *args: Any, **options: Any) -> str:
        raise ValueError("roles must alternate")


def test_chat_without_a_template_says_what_to_do() -> None:
    with pytest.raises(RequestError, match="no chat template; use /v1/completions"):
        HuggingFaceCodec(Tokenizer()).render_chat([{"role": "user", "content": "a"}])


def test_a_template_that_refuses_the_messages_is_the_requests_fault() -> None:
    tokenizer = Tokenizer()
    tokenizer.chat_template = "x"
    with pytest.raises(RequestError, match="roles must alternate") as caught:
        HuggingFaceCodec(tokenizer).render_chat([{"role": "user", "content": "a"}])
    assert caught.value.status == 400


def test_chat_is_encoded_by_the_template(tiny_llama: Path) -> None:
    codec = HuggingFaceCodec(load_model(tiny_llama).tokenizer)
    tokens = codec.encode(codec.render_chat([{"role": "user", "content": "hé"}]), special=False)
    assert codec.decode(tokens) == "user: hé\nassistant: "
    assert codec.decode([*codec.encode("a"), 256]) == "a"


def test_a_special_token_is_kept_where_a_reader_needs_its_text(tiny_llama: Path) -> None:
    codec = HuggingFaceCodec(load_model(tiny_llama).tokenizer)
    assert codec.special == {256: "<end>"}
    assert codec.decode([*codec.encode("a"), 256, *codec.encode("b")], kept={256}) == "a<end>b"
