"""One answer in progress: from the tokens of its choices to pieces of text. `service` starts it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Protocol

from kaito_runtime.engine.protocol import PromptToken, Token, TokenStream
from kaito_runtime.errors import RequestError
from kaito_runtime.openai.codec import TextCodec
from kaito_runtime.openai.replies import FinishReason, Piece, Usage
from kaito_runtime.openai.text import AnswerText, TextRules, TextStream
from kaito_runtime.openai.tool_reader import AnswerReader

__all__ = ["Answer", "Recorder"]


class Recorder(Protocol):
    """Counts requests and tokens. The server's metrics are one."""

    def request(self, model: str, adapters: Iterable[str], prompt_tokens: int) -> None:
        """Counts a request that the engine has accepted."""

    def token(self, seconds: float, *, first: bool) -> None:
        """Counts a token and the time since the one before, or since the request."""


class Answer:
    """The answer to one request: its choices, each a stream of tokens.

    Args:
        streams: `best_of` for the first prompt, then as many for the second, and so on.
        rules: How its tokens become text.
        prompt_tokens: Tokens of all prompts, each prompt counted once.
        generation: Generation of the configuration that its strengths are from.
        n: Choices of each prompt that are returned; of more streams, those whose tokens are the likeliest on average.
        echoes: The prompt of each stream, to put in front of its text; empty for none.
        new_reader: Returns what splits the text of a choice into thoughts, text and tool calls; None: all is text.
        kept: Special tokens whose text is kept, since such a reader needs it.
        seconds: Time limit; None for none.
    """

    def __init__(
        self,
        streams: Sequence[TokenStream],
        *,
        codec: TextCodec,
        rules: TextRules,
        prompt_tokens: int,
        generation: int,
        recorder: Recorder,
        n: int = 1,
        best_of: int = 1,
        echoes: Sequence[Sequence[int]] = (),
        new_reader: Callable[[], AnswerReader] | None = None,
        kept: frozenset[int] = frozenset(),
        seconds: float | None = None,
    ) -> None:
        self._streams = streams
        self._codec = codec
        self._rules = rules
        self._recorder = recorder
        self._echoes = echoes
        self._new_reader = new_reader or (lambda: AnswerReader(None))
        self._kept = kept
        self._started = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire, seconds) if seconds else None
        self.prompt_tokens = prompt_tokens
        self.generation = generation
        self.completion_tokens = 0
        self.choices = len(streams)
        self._n = n
        self._best_of = best_of
        self._cached = [0] * len(streams)
        self._likelihood = [(0.0, 0)] * len(streams)  # (sum of log-probabilities, tokens)

    @property
    def usage(self) -> Usage:
        """Token counts so far."""
        # Choices share their prompt, which counts once: only what none of them had to compute was cached.
        cached = sum(min(self._cached[i : i + self._best_of]) for i in range(0, self.choices, self._best_of))
        return Usage(self.prompt_tokens, self.completion_tokens, cached)

    def prompt(self, index: int) -> Sequence[PromptToken]:
        """Returns the prompt's tokens of a choice that `whole` returned, if their log-probabilities were asked for."""
        return self._streams[index // self._n * self._best_of].prompt

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """Yields new text of any choice as it comes. A reader that stops early must call `cancel`."""
        choices = [self._choice(i, stream) for i, stream in enumerate(self._streams)]
        async with aclosing(_interleaved(choices)) as pieces:
            async for piece in pieces:
                yield piece

    async def whole(self) -> list[Piece]:
        """Returns each choice that is returned as one piece."""
        gathered: list[list[Piece]] = [[] for _ in self._streams]
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                gathered[piece.index].append(piece)
        whole = [
            Piece(
                index,
                "".join(part.text for part in parts),
                [token for part in parts for token in part.tokens],
                parts[-1].finish,
                "".join(part.thoughts for part in parts),
                [call for part in parts for call in part.calls],
            )
            for index, parts in enumerate(gathered)
        ]
        if self._n == self._best_of:
            return whole
        kept: list[Piece] = []
        for first in range(0, len(whole), self._best_of):
            best = sorted(whole[first : first + self._best_of], key=lambda piece: -self._mean(piece.index))
            kept += best[: self._n]
        return [replace(piece, index=index) for index, piece in enumerate(kept)]

    def cancel(self) -> None:
        """Ends every choice that is still running."""
        if self._timer is not None:
            self._timer.cancel()
        for stream in self._streams:
            stream.cancel()

    def _mean(self, index: int) -> float:
        total, tokens = self._likelihood[index]
        return total / max(tokens, 1)

    def _expire(self, seconds: float) -> None:
        message = f"the answer was not complete after {seconds:g} s; ask for fewer tokens or try again later"
        for stream in self._streams:
            stream.fail(RequestError(message, status=408, code="deadline_exceeded"))

    async def _choice(self, index: int, stream: TokenStream) -> AsyncGenerator[Piece, None]:
        text = AnswerText(self._codec.decode, self._codec.special, self._rules, self._kept)
        reader = self._new_reader()
        echo = ""
        tokens: list[tuple[Token, str]] = []
        last = self._started
        async for token in stream:
            now = time.monotonic()
            self._recorder.token(now - last, first=last == self._started)
            if last == self._started:
                echo, tokens = self._echo(index)
            last = now
            self.completion_tokens += 1
            self._cached[index] = token.cached
            total, count = self._likelihood[index]
            self._likelihood[index] = (total + (token.logprob or 0.0), count + 1)
            ended = token.finish == "stop"
            gained, shown = text.push(token.id, ends=ended, last=token.finish is not None)
            read = reader.push(shown)
            finish: FinishReason | None = "stop" if text.stopped or reader.complete else token.finish
            if finish is not None:
                stream.cancel()
                read += reader.flush()
                finish = "tool_calls" if finish == "stop" and reader.called else finish
            if not ended or self._rules.keep_stop:
                tokens.append((token, gained))
            yield Piece(index, echo + read.text, tokens, finish, read.thoughts, read.calls)
            echo, tokens = "", []
            if finish is not None:
                return
        echo, tokens = self._echo(index)  # of a prompt without an answer
        yield Piece(index, echo, tokens, "length")

    def _echo(self, index: int) -> tuple[str, list[tuple[Token, str]]]:
        """Returns the text that is put in front of a choice and, if they were asked for, its tokens."""
        if not self._echoes:
            return "", []
        kept = self._codec.special.keys() if self._rules.keep_special else ()
        text = TextStream(lambda tokens: self._codec.decode(tokens, kept))
        gained = [text.push(token) for token in self._echoes[index]]
        gained[-1] += text.flush()
        scored = self._streams[index].prompt
        tokens = [Token(token.id, None, token.logprob, token.top) for token in scored]
        return "".join(gained), list(zip(tokens, gained, strict=True)) if tokens else []


async def _interleaved(sources: Sequence[AsyncGenerator[Piece, None]]) -> AsyncGenerator[Piece, None]:
    """Yields from all sources, whichever is first. All are closed when the reader stops or one of them raises."""
    items: asyncio.Queue[Piece | Exception | None] = asyncio.Queue()

    async def pump(source: AsyncGenerator[Piece, None]) -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    items.put_nowait(item)
        except Exception as error:
            items.put_nowait(error)
        items.put_nowait(None)

    tasks = [asyncio.create_task(pump(source)) for source in sources]
    try:
        left = len(tasks)
        while left:
            item = await items.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
