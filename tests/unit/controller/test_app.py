"""The operator as a process: what its garbage collector skips, and that it still collects the rest."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from kaito_core.controller.app import spare_collector


class Node:
    """Something that can be part of a cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)


def test_what_was_there_is_left_alone_and_what_comes_later_is_collected() -> None:
    before = Node()
    old = weakref.ref(before)
    spare_collector()
    del before
    new = weakref.ref(Node())
    gc.collect()
    assert old() is not None
    assert new() is None


def test_garbage_is_not_kept_for_good() -> None:
    new = weakref.ref(Node())
    spare_collector()
    assert new() is None
