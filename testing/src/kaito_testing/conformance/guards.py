"""Guards around calls of plugins, which must not use the network, files or processes, and must not wait."""

import asyncio
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["no_io", "no_waiting"]

_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.send", "socket.bind")
_PROCESSES = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork")
#: Opened by imports, which may happen at any time.
_CODE = (".py", ".pyc", ".so", ".pyd")

_watched: dict[int, list[str]] = {}  # thread that must do no I/O -> what it did
_installed = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    seen = _watched.get(threading.get_ident()) if _watched else None
    if seen is None:
        return
    if event.startswith(_NETWORK + _PROCESSES):
        seen.append(f"{event}{arguments!r:.120}")
    elif event == "open" and isinstance(arguments[0], str | bytes) and not str(arguments[0]).endswith(_CODE):
        seen.append(f"open of {arguments[0]!r}")
    else:
        return
    raise AssertionError(seen[-1])  # so that it is not done


@contextmanager
def no_io() -> Iterator[None]:
    """Fails the test if the block connects, resolves a name, starts a process, or opens a file.

    It listens to Python's audit events, so it notices every library. Files of code may be opened. An error that the
    block swallows is raised at its end.

    Raises:
        AssertionError: The block does I/O; the message says which.
    """
    global _installed
    if not _installed:  # audit hooks cannot be removed
        sys.addaudithook(_hook)
        _installed = True
    seen = _watched.setdefault(threading.get_ident(), [])
    try:
        yield
    except AssertionError:
        if not seen:
            raise
    finally:
        del _watched[threading.get_ident()]
    assert not seen, f"does I/O where it must not: {', '.join(seen)}"


@contextmanager
def no_waiting() -> Iterator[None]:
    """Fails the test if the block sleeps, with asyncio or without.

    Raises:
        AssertionError: The block sleeps.
    """
    slept: list[float] = []
    asynchronous, blocking = asyncio.sleep, time.sleep

    async def refuse(delay: float, result: Any = None) -> Any:
        if delay > 0:
            slept.append(delay)
        return await asynchronous(0, result)

    asyncio.sleep, time.sleep = refuse, slept.append  # type: ignore[assignment]
    try:
        yield
    finally:
        asyncio.sleep, time.sleep = asynchronous, blocking
    assert not slept, f"waits for {slept[0]:g} s: say that things are not ready yet instead; you are asked again"
