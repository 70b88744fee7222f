"""The `kaito` command: it reads arguments, calls the packages that do the work, and prints what they return."""

import sys

__all__ = ["main"]

_INTERRUPTED = 130  # the shell's status of a program that SIGINT has ended


def main() -> None:
    """Runs the command line. An error that kaito raises on purpose becomes one line on stderr and exit status 1."""
    try:
        # Inside the try: importing takes long enough for a user to press Ctrl-C.
        from kaito_core.cli.app import app
        from kaito_core.errors import KaitoError

        try:
            app(prog_name="kaito")
        except KaitoError as error:
            sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
