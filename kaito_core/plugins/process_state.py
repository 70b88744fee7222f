"""Detects what a plugin changes in the process while it loads. Changes are reported, not reverted: some are meant.

The environment is compared here, and nothing is taken from it.
"""

import logging
import os
import signal
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import Any

__all__ = ["ProcessState"]


@dataclass(frozen=True, slots=True)
class ProcessState:
    """A snapshot of the state that all code of a process shares."""

    environment: dict[str, str]
    values: dict[str, Any]
    signals: dict[signal.Signals, Any]
    threads: frozenset[threading.Thread]

    @classmethod
    def now(cls) -> "ProcessState":
        """Takes a snapshot."""
        root = logging.getLogger()
        return cls(
            environment=dict(os.environ),
            values={
                "sys.path": list(sys.path),
                "the warning filters": list(warnings.filters),
                "the root logger": (root.level, list(root.handlers), list(root.filters), root.manager.disable),
                "the working directory": _working_directory(),
                "sys.excepthook": sys.excepthook,
                "the recursion limit": sys.getrecursionlimit(),
            },
            signals={number: signal.getsignal(number) for number in signal.valid_signals() if _is_named(number)},
            threads=frozenset(threading.enumerate()),
        )

    def changes(self) -> tuple[str, ...]:
        """Returns what has changed since the snapshot, in words; without values, which may be secrets."""
        after = ProcessState.now()
        found = [
            (
                "os.environ",
                sorted(
                    name
                    for name in {*self.environment, *after.environment}
                    if self.environment.get(name) != after.environment.get(name)
                ),
            ),
            ("the handlers of signals", [n.name for n, value in self.signals.items() if after.signals[n] is not value]),
        ]
        words = [f"changed {what}: {', '.join(names)}" for what, names in found if names]
        words += [f"changed {what}" for what, value in self.values.items() if after.values[what] != value]
        if started := sorted(thread.name for thread in after.threads - self.threads):
            words.append(f"started threads: {', '.join(started)}")
        return tuple(words)


def _is_named(number: object) -> bool:
    return isinstance(number, signal.Signals)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was deleted
        return ""
