"""How the operator logs: which fields a line has, and in which form it is written. What is logged is not decided here.

`python-json-logger` writes the JSON: kopf brings it along, and it formats the records of the standard library, so that
kopf's lines and those of plugins come out in the same form.
"""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from kaito_core.controller.records import Key

__all__ = ["configure", "handling", "talking_of"]

_workspace: ContextVar[Key | None] = ContextVar("workspace", default=None)

#: What kopf attaches to its records for itself.
_KOPFS = ("k8s_ref", "k8s_skip", "settings")


@contextmanager
def talking_of(key: Key) -> Iterator[None]:
    """Lets every line that is logged meanwhile name a Workspace, whoever logs it."""
    token = _workspace.set(key)
    try:
        yield
    finally:
        _workspace.reset(token)


class _Context(logging.Filter):
    """Adds the Workspace that a line is about."""

    def filter(self, record: logging.LogRecord) -> bool:
        key = _workspace.get()
        if key is not None and not hasattr(record, "workspace"):
            record.namespace, record.workspace = key
        return True


class _TextFormatter(logging.Formatter):
    """Lines for people: time, level, Workspace, what happened."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(subject)s%(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        workspace = getattr(record, "workspace", "")
        record.subject = f"{getattr(record, 'namespace', '')}/{workspace}: " if workspace else ""
        return super().format(record)


def handling(log_format: str, stream: TextIO) -> logging.Handler:
    """Returns a handler that writes "json" or "text" to a stream."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(_Context())
    formatter: logging.Formatter = _TextFormatter()
    if log_format == "json":
        formatter = JsonFormatter(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger"},
            reserved_attrs=[*RESERVED_ATTRS, *_KOPFS],
            timestamp="time",
        )
    handler.setFormatter(formatter)
    return handler


def configure(log_format: str, level: str) -> None:
    """Logs everything from a level on to stderr; warnings of Python are logged too."""
    logging.basicConfig(handlers=[handling(log_format, sys.stderr)], level=level, force=True)
    logging.captureWarnings(True)
    # One line for each change is ours; kopf's own are about its innards, the client's about each request.
    for name in ("kopf", "httpx", "httpcore", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
