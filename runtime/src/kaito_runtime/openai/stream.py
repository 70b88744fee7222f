"""One answer in progress: from the tokens of its choices to pieces of text. `service` starts it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Protocol

from kaito_runtime.engine.protocol import TokenStream
from kaito_runtime.errors import RequestError
from kaito_runtime.openai.codec import TextCodec
from kaito_runtime.openai.replies import FinishReason, Piece, Usage
from kaito_runtime.openai.text import StopStrings, TextStream
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
        streams: `n` for the first prompt, then `n` for the second, and so on.
        prompt_tokens: Tokens of all prompts, each prompt counted once.
        generation: Generation of the configuration that its strengths are from.
        echoes: The prompt's text to put in front of each choice; empty for none.
        new_reader: Returns what splits the text of a choice into thoughts, text and tool calls; None: all is text.
        kept: Special tokens whose text is kept, since such a reader needs it.
        seconds: Time limit; None for none.
    """

    def __init__(
        self,
        streams: Sequence[TokenStream],
        *,
        codec: TextCodec,
        stops: Sequence[str],
        prompt_tokens: int,
        generation: int,
        recorder: Recorder,
        n: int = 1,
        echoes: Sequence[str] = (),
        new_reader: Callable[[], AnswerReader] | None = None,
        kept: frozenset[int] = frozenset(),
        seconds: float | None = None,
    ) -> None:
        self._streams = streams
        self._codec = codec
        self._stops = stops
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
        self._cached = [0] * len(streams)

    @property
    def usage(self) -> Usage:
        """Token counts so far."""
        # Choices share their prompt, which counts once: only what none of them had to compute was cached.
        cached = sum(min(self._cached[i : i + self._n]) for i in range(0, self.choices, self._n))
        return Usage(self.prompt_tokens, self.completion_tokens, cached)

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """Yields new text of any choice as it comes. A reader that stops early must call `cancel`."""
        choices = [self._choice(i, stream) for i, stream in enumerate(self._streams)]
        async with aclosing(_interleaved(choices)) as pieces:
            async for piece in pieces:
                yield piece

    async def whole(self) -> list[Piece]:
        """Returns each choice as one piece."""
        gathered: list[list[Piece]] = [[] for _ in self._streams]
        async with aclosing(self.pieces()) as pieces:
            async for piece in pieces:
                gathered[piece.index].append(piece)
        return [
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

    def cancel(self) -> None:
        """Ends every choice that is still running."""
        if self._timer is not None:
            self._timer.cancel()
        for stream in self._streams:
            stream.cancel()

    def _expire(self, seconds: float) -> None:
        message = f"the answer was not complete after {seconds:g} s; ask for fewer tokens or try again later"
        for stream in self._streams:
            stream.fail(RequestError(message, status=408, code="deadline_exceeded"))

    async def _choice(self, index: int, stream: TokenStream) -> AsyncGenerator[Piece, None]:
        text, stops = TextStream(partial(self._codec.decode, kept=self._kept)), StopStrings(self._stops)
        reader = self._new_reader()
        echo = self._echoes[index] if self._echoes else ""
        last = self._started
        async for token in stream:
            now = time.monotonic()
            self._recorder.token(now - last, first=last == self._started)
            last = now
            self.completion_tokens += 1
            self._cached[index] = token.cached
            ended = token.finish == "stop"
            gained = "" if ended else text.push(token.id)
            if token.finish is not None:
                gained += text.flush()
            shown = stops.push(gained)
            if token.finish is not None and not stops.found:
                shown += stops.flush()
            read = reader.push(shown)
            finish: FinishReason | None = "stop" if stops.found or reader.complete else token.finish
            if finish is not None:
                stream.cancel()
                read += reader.flush()
                finish = "tool_calls" if finish == "stop" and reader.called else finish
            tokens = () if ended else ((token, gained),)
            yield Piece(index, echo + read.text, tokens, finish, read.thoughts, read.calls)
            echo = ""
            if finish is not None:
                return


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
