"""One answer in progress: from the tokens of its choices to pieces of text. How it starts is `answers`' business."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from kaito_runtime.engine.protocol import TextCodec, TokenStream
from kaito_runtime.errors import RequestError
from kaito_runtime.http.metrics import Metrics
from kaito_runtime.openai.merge import merge
from kaito_runtime.openai.requests import Piece, Usage
from kaito_runtime.openai.text import StopStrings, TextStream

__all__ = ["Answer"]


class Answer:
    """One request in progress: its choices, each a stream of tokens.

    Args:
        streams: Those of the first prompt, then those of the second, and so on: `n` of each.
        prompt_tokens: Tokens of all prompts, each counted once.
        leads: Text in front of each choice, if any.
        seconds: Longest time that it may take; None for no limit.
    """

    def __init__(
        self,
        streams: Sequence[TokenStream],
        *,
        codec: TextCodec,
        stops: Sequence[str],
        prompt_tokens: int,
        metrics: Metrics,
        n: int = 1,
        leads: Sequence[str] = (),
        seconds: float | None = None,
    ) -> None:
        self._streams = streams
        self._codec = codec
        self._stops = stops
        self._metrics = metrics
        self._leads = leads
        self._started = time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire, seconds) if seconds else None
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = 0
        self.choices = len(streams)
        self._n = n
        self._cached = [0] * len(streams)

    @property
    def usage(self) -> Usage:
        """Token counts so far."""
        # A prompt counts once, however many choices it has: cached is what none of them had to compute.
        cached = sum(min(self._cached[i : i + self._n]) for i in range(0, self.choices, self._n))
        return Usage(self.prompt_tokens, self.completion_tokens, cached)

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """Yields what the choices gain, as it comes. Whoever stops reading must `cancel`."""
        async with aclosing(merge([self._choice(i, s) for i, s in enumerate(self._streams)])) as merged:
            async for piece in merged:
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
            )
            for index, parts in enumerate(gathered)
        ]

    def cancel(self) -> None:
        """Ends every choice that still runs."""
        if self._timer is not None:
            self._timer.cancel()
        for stream in self._streams:
            stream.cancel()

    def _expire(self, seconds: float) -> None:
        message = f"the answer was not complete after {seconds:g} s; ask for fewer tokens"
        for stream in self._streams:
            stream.fail(RequestError(message, status=408, code="deadline_exceeded"))

    async def _choice(self, index: int, stream: TokenStream) -> AsyncGenerator[Piece, None]:
        text, stops = TextStream(self._codec.decode), StopStrings(self._stops)
        lead = self._leads[index] if self._leads else ""
        last = self._started
        async for token in stream:
            now = time.monotonic()
            self._metrics.token(now - last, first=last == self._started)
            last = now
            self.completion_tokens += 1
            self._cached[index] = token.cached
            ended = token.finish == "stop"
            gained = "" if ended else text.push(token.id)
            if token.finish is not None:
                gained += text.flush()
            shown = stops.push(gained)
            if stops.found:
                stream.cancel()
            elif token.finish is not None:
                shown += stops.flush()
            finish = "stop" if stops.found else token.finish
            yield Piece(index, lead + shown, () if ended else ((token, gained),), finish)
            lead = ""
            if finish is not None:
                return
