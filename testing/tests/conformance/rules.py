"""Runs one rule of a conformance suite outside pytest's own loop, to see what it says about a plugin."""

import inspect
import itertools
from typing import Any

import pytest

__all__ = ["rules", "verdict"]


def rules(suite: type[Any]) -> set[str]:
    """Returns the names of the rules of a suite."""
    return {name for name, _ in inspect.getmembers(suite, inspect.isfunction) if name.startswith("test_")}


def verdict(suite: type[Any], rule: str) -> str:
    """Returns what a rule objects to, over all its parameters; "" if nothing, "skipped" if it does not apply."""
    method = getattr(suite(), rule)
    marks = [mark for mark in getattr(method, "pytestmark", ()) if mark.name == "parametrize"]
    for values in itertools.product(*(mark.args[1] for mark in marks)):
        try:
            method(**dict(zip((mark.args[0] for mark in marks), values, strict=True)))
        except pytest.skip.Exception:
            return "skipped"
        except (AssertionError, pytest.fail.Exception) as error:
            return str(error) or repr(error)
    return ""
