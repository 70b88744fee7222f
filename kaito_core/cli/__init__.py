"""The `kaito` command. Thin: it reads arguments, calls the rooms behind it and prints what they return."""

import sys

from kaito_core.errors import KaitoError

__all__ = ["main"]


def main() -> None:
    """Runs the command line; what kaito raises on purpose becomes one line on stderr and exit status 1."""
    from kaito_core.cli.app import app

    try:
        app()
    except KaitoError as error:
        sys.exit(f"error: {error}")
