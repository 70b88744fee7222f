"""Fixtures of the tests of HTTP."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from site_in_memory import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    yield Site(tmp_path)
