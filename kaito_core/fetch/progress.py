"""How a fetch goes: a bar on a terminal, and lines in a log."""

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

__all__ = ["LogProgress", "Progress", "TerminalProgress", "duration_words", "size_words"]

_log = logging.getLogger(__name__)

_NEWS_SECONDS = 5.0


class Progress(Protocol):
    """What a fetch tells about itself."""

    def begins(self, name: str, done: int, size: int | None) -> None:
        """Called when a file is opened: `done` of `size` bytes are there already."""

    def moved(self, count: int) -> None:
        """Called when `count` more bytes are there."""

    def ends(self) -> None:
        """Called when the file is whole."""

    def says(self, text: str) -> None:
        """Called with news, such as that a server is asked again."""


class LogProgress:
    """Lines in the log, one in five seconds and one at the end of each file.

    Args:
        say: Takes a line.
        clock: Returns seconds that only grow.
    """

    def __init__(self, say: Callable[[str], None] = _log.info, clock: Callable[[], float] = time.monotonic) -> None:
        self.says = say
        self._clock = clock
        self._name = ""
        self._done = self._first = 0
        self._size: int | None = None
        self._began = self._told = 0.0

    def begins(self, name: str, done: int, size: int | None) -> None:
        """See `Progress`."""
        self._name, self._done, self._first, self._size = name, done, done, size
        self._began = self._told = self._clock()
        if done:
            self.says(f"{name}: goes on at {size_words(done)}{_of(size)}")

    def moved(self, count: int) -> None:
        """See `Progress`."""
        self._done += count
        if (now := self._clock()) - self._told >= _NEWS_SECONDS:
            self._told = now
            rate = (self._done - self._first) / (now - self._began)
            left = ""
            if self._size is not None and rate:
                left = f", {duration_words((self._size - self._done) / rate)} left"
            self.says(f"{self._name}: {size_words(self._done)}{_of(self._size)}, {size_words(rate)}/s{left}")

    def ends(self) -> None:
        """See `Progress`."""
        seconds = self._clock() - self._began
        rate = f", {size_words((self._done - self._first) / seconds)}/s" if seconds > 0 else ""
        self.says(f"{self._name}: {size_words(self._done)} in {duration_words(seconds)}{rate}")


class TerminalProgress:
    """A bar for each file, on standard error; used as a context manager."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars

        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, markup=False, highlight=False),
        )
        self._task = self._bars.add_task("", visible=False)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begins(self, name: str, done: int, size: int | None) -> None:
        """See `Progress`."""
        self._bars.update(self._task, visible=False)
        self._task = self._bars.add_task(name, completed=done, total=size)

    def moved(self, count: int) -> None:
        """See `Progress`."""
        self._bars.advance(self._task, count)

    def ends(self) -> None:
        """See `Progress`."""

    def says(self, text: str) -> None:
        """See `Progress`."""
        self._bars.console.print(text)


def size_words(count: float) -> str:
    """Returns a number of bytes in words, such as "1.5 GiB"."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"


def duration_words(seconds: float) -> str:
    """Returns a time in words, such as "2 min 5 s"."""
    minutes, rest = divmod(max(0.0, seconds), 60)
    return f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{rest:.1f} s"


def _of(size: int | None) -> str:
    return "" if size is None else f" of {size_words(size)}"
