"""How a command fails: one line on standard error, and exit status 1."""

import sys
from typing import NoReturn

import typer

__all__ = ["fail"]


def fail(error: object) -> NoReturn:
    """Ends the command with an error message."""
    print(f"error: {error}", file=sys.stderr)
    raise typer.Exit(1)
