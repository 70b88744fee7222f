"""How code of a plugin is called: it cannot end the process, and a slow call is named in the log."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kaito_core.errors import PluginError

__all__ = ["SLOW_SECONDS", "plugin_call", "running_call"]

SLOW_SECONDS = 0.5  #: a function of a plugin that is not asynchronous should return sooner

_log = logging.getLogger(__name__)

#: The blocking call that each thread is in, by the thread's identifier: what is called, and since when.
_running: dict[int, tuple[str, float]] = {}


@contextmanager
def plugin_call(plugin: str, function: str, *, blocking: bool = True) -> Iterator[None]:
    """Encloses a call of a plugin's code.

    `SystemExit` and everything else that is not an `Exception` becomes a `PluginError`, so that `except Exception`
    around the call is enough. `KeyboardInterrupt` passes, and so does `asyncio.CancelledError` where the task is being
    cancelled.

    Args:
        plugin: Name of the plugin.
        function: What is called, as the log names it: a hook, or "ensure of node provider 'azure'".
        blocking: Whether nothing else runs meanwhile, so that a slow call is worth a warning.

    Raises:
        PluginError: The code raised something that is not an Exception.
    """
    thread, began = threading.get_ident(), time.perf_counter()
    if blocking:
        _running[thread] = (f"plugin '{plugin}': {function}", began)
    try:
        yield
    except (Exception, KeyboardInterrupt, GeneratorExit):  # GeneratorExit: the coroutine that calls is closed
        raise
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
            raise
        message = f"plugin '{plugin}': {function} raised {type(error).__name__}: {error}"
        raise PluginError(message, plugin=plugin) from error
    finally:
        if blocking:
            _running.pop(thread, None)
        seconds = time.perf_counter() - began
        if blocking and seconds > SLOW_SECONDS:
            _log.warning(
                "plugin '%s': %s took %.1f s; it should take less than %g s", plugin, function, seconds, SLOW_SECONDS
            )


def running_call(thread: int) -> tuple[str, float]:
    """Returns which plugin's function a thread is in and for how many seconds, ("", 0.0) where it is in none."""
    function, began = _running.get(thread, ("", 0.0))
    return function, time.perf_counter() - began if function else 0.0


def _is_being_cancelled() -> bool:
    """Returns whether somebody has cancelled the current task; code that cancelled itself has not been."""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a thread without an event loop
        return False
    return task is not None and task.cancelling() > 0
