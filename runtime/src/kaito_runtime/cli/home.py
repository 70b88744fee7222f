"""A home folder that can be written, for libraries that keep their caches in it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["writable_home"]


@contextmanager
def writable_home() -> Iterator[None]:
    """Sets HOME to a new folder while a command runs, if the user's own cannot be written.

    The home of a uid without a passwd entry is "/" or unset. Triton and the hub keep their caches below it, and
    without a cache Triton compiles nothing.
    """
    if os.access(os.path.expanduser("~"), os.W_OK):
        yield
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="kaito-home-")
    except FileNotFoundError:  # no temporary folder can be written either; commands that write nothing still work
        yield
        return
    with folder as home:
        os.environ["HOME"] = home
        yield
