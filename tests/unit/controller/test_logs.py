"""What a line of the operator's log looks like."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from kaito_core.controller import logs


@contextmanager
def _logger(log_format: str) -> Iterator[tuple[logging.Logger, io.StringIO]]:
    stream = io.StringIO()
    logger = logging.Logger("kaito_core.test")
    logger.addHandler(logs.handling(log_format, stream))
    yield logger, stream


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_has_a_field_for_everything_that_one_looks_for() -> None:
    with _logger("json") as (logger, stream):
        with logs.logging_about(("team", "w")):
            logger.info("Create %s", "Service/w", extra={"action": "Create", "reason": "Missing"})
        logger.warning("no Workspace")
    first, second = _lines(stream)
    assert first.pop("time") and second.pop("time")
    assert first == {
        "level": "INFO",
        "logger": "kaito_core.test",
        "message": "Create Service/w",
        "namespace": "team",
        "workspace": "w",
        "action": "Create",
        "reason": "Missing",
    }
    assert second == {"level": "WARNING", "logger": "kaito_core.test", "message": "no Workspace"}


def test_kopfs_lines_are_of_the_same_form() -> None:
    with _logger("json") as (logger, stream):
        logger.error("retry\nsoon", extra={"settings": object(), "k8s_skip": True, "k8s_ref": {"name": "w"}})
    (line,) = _lines(stream)
    assert line["message"] == "retry\nsoon" and set(line) == {"time", "level", "logger", "message"}


def test_a_traceback_is_a_field_of_its_line() -> None:
    with _logger("json") as (logger, stream):
        try:
            raise KeyError("boom")
        except KeyError:
            logger.exception("failed")
    (line,) = _lines(stream)
    assert "KeyError: 'boom'" in line["exc_info"]


def test_text_is_for_people() -> None:
    with _logger("text") as (logger, stream):
        with logs.logging_about(("team", "w")):
            logger.info("Create Service/w")
        logger.warning("no Workspace")
    first, second = stream.getvalue().splitlines()
    assert first.split(" ", 1)[1] == "INFO    team/w: Create Service/w"
    assert second.split(" ", 1)[1] == "WARNING no Workspace"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    logger, names = logging.getLogger(), ("kopf", "httpx", "httpcore", "asyncio")
    before = logger.handlers[:], logger.level, [logging.getLogger(name).level for name in names]
    yield logger
    logger.handlers[:], level, levels = before
    logger.setLevel(level)
    logging.captureWarnings(False)
    for name, old in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(old)


def test_configured_twice_it_says_everything_once(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        logs.configure("text", "INFO")
    logging.getLogger("kaito_core.any").info("once")
    logging.getLogger("kopf.any").info("innards")
    logging.getLogger("kopf.any").warning("trouble")
    assert [line.rsplit(" ", 1)[1] for line in capsys.readouterr().err.splitlines()] == ["once", "trouble"]
