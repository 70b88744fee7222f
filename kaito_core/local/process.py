"""A child process in a group of its own. Its output is printed with a prefix, and it does not outlive this process."""

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

from kaito_core.errors import ConfigError
from kaito_core.local.pod import Command

__all__ = ["Process"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LAST_LINES = 20
_LONGEST_LINE = 1 << 20  # bytes


def _end_with_parent() -> None:
    # So that it ends even if this process is killed with SIGKILL. Only Linux can do this.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Process:
    """A running command, used as `async with Process(command, say) as process`: leaving the block ends it.

    Args:
        command: What to run.
        say: Called with each line of its output.
        grace_seconds: Time between SIGTERM and SIGKILL, in seconds.

    Attributes:
        last_lines: The end of its output, for messages.

    Raises:
        ConfigError: On entering: the command cannot be started.
    """

    def __init__(self, command: Command, say: Callable[[str], None], *, grace_seconds: float = 15.0) -> None:
        self.command = command
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._say = say
        self._grace_seconds = grace_seconds

    async def __aenter__(self) -> Self:
        try:
            self._child = await asyncio.create_subprocess_exec(
                *self.command.argv,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.command.env},  # passed on, not read
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C must reach kaito alone, which then ends the group in order
                preexec_fn=_end_with_parent,
                limit=_LONGEST_LINE,
            )
        except OSError as error:
            name, program = self.command.name, self.command.argv[0]
            raise ConfigError(f"{name}: '{program}' cannot be run on this machine: {error.strerror}") from error
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
        self._signal(signal.SIGKILL)  # what it has started itself and left behind
        self._reader.cancel()

    async def wait(self) -> int:
        """Waits until the process has ended and its output is printed, and returns its exit status."""
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
