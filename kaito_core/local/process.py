"""One child process: started in a group of its own, its output printed with a prefix, and surely ended."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from kaito_core.local.pod import Command

__all__ = ["Process"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LAST_LINES = 20


def _end_with_parent() -> None:
    # Also a parent that is killed with SIGKILL takes its children along; elsewhere than on Linux there is no way.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Process:
    """A running command, used as `async with Process(command, say) as process`: leaving the block ends it.

    Attributes:
        last_lines: The end of its output, for messages.
    """

    def __init__(self, command: Command, say: Callable[[str], None], *, grace_seconds: float = 15.0) -> None:
        self.command = command
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._say = say
        self._grace_seconds = grace_seconds

    async def __aenter__(self) -> Self:
        self._child = await asyncio.create_subprocess_exec(
            *self.command.argv,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **self.command.env},  # passed on, not read
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the group in order
            preexec_fn=_end_with_parent,
            limit=1 << 20,
        )
        self._reader = asyncio.create_task(self._print_output())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for how in (signal.SIGTERM, signal.SIGKILL):
            if self._child.returncode is None:
                self._signal(how)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._child.wait(), self._grace_seconds)
        self._signal(signal.SIGKILL)  # whatever it started itself and left behind
        self._reader.cancel()

    async def wait(self) -> int:
        """Returns the exit status once the process has ended and all its output is printed."""
        status = await self._child.wait()
        await self._reader
        return status

    def kill(self) -> None:
        """Ends the process at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, how: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, how)

    async def _print_output(self) -> None:
        assert self._child.stdout is not None
        while line := await self._child.stdout.readline():
            text = line.decode(errors="replace").rstrip()
            self.last_lines.append(text)
            self._say(f"{self.command.name} | {text}")
