"""What comes out of a stream, in which order."""

import asyncio

import pytest

from kaito_runtime.engine.protocol import PromptScores, PromptToken, Token, TokenStream

PROMPT = (PromptToken(5), PromptToken(6, -0.5, ((6, -0.5),)))


def read(*events: Token | PromptScores | Exception) -> tuple[list[int], TokenStream]:
    """Returns the ids of the tokens in a stream, and the stream at its end."""

    async def run() -> tuple[list[int], TokenStream]:
        stream = TokenStream(lambda: None)
        for event in events:
            stream.put(event)
        return [token.id async for token in stream], stream

    return asyncio.run(asyncio.wait_for(run(), 10))


def test_prompt_is_there_with_the_first_token() -> None:
    async def run() -> TokenStream:
        stream = TokenStream(lambda: None)
        assert stream.prompt == ()
        stream.put(PromptScores(PROMPT))
        stream.put(Token(1))
        await anext(stream)
        return stream

    assert asyncio.run(run()).prompt == PROMPT


def test_tokens_end_with_the_one_that_finishes() -> None:
    ids, stream = read(PromptScores(PROMPT), Token(1), Token(2, "stop"), Token(3))
    assert ids == [1, 2]
    assert stream.prompt == PROMPT


def test_prompt_alone_ends_the_stream_without_a_token() -> None:
    ids, stream = read(PromptScores(PROMPT, "length"), Token(1))
    assert ids == []
    assert stream.prompt == PROMPT


def test_error_ends_the_stream_after_the_prompt() -> None:
    with pytest.raises(ValueError, match="broken"):
        read(PromptScores(PROMPT), ValueError("broken"))
