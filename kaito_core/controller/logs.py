"""The form of the operator's log: which fields a line has, and whether it is text or JSON.

`python-json-logger` writes the JSON. It formats records of the standard library, so that the lines of kopf and of
plugins have the same form as ours.
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

__all__ = ["configure", "handling", "logging_about"]

_workspace: ContextVar[Key | None] = ContextVar("workspace", default=None)

#: Attributes of kopf's records that are meant for kopf itself.
_KOPFS = ("k8s_ref", "k8s_skip", "settings")


@contextmanager
def logging_about(key: Key) -> Iterator[None]:
    """Adds a Workspace to every line that is logged within the block, by any module."""
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
    """Logs to stderr from a level on, Python's warnings included."""
    logging.basicConfig(handlers=[handling(log_format, sys.stderr)], level=level, force=True)
    logging.captureWarnings(True)
    # Our own lines are one per change; kopf's are about its internals, those of the HTTP clients about each request.
    for name in ("kopf", "httpx", "httpcore", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
