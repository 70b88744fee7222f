"""Fixtures for tests that install kaito as a user does: wheels, and environments made of them."""

import os
from pathlib import Path

import pytest

from helpers.fresh_venv import FreshVenv, Wheels, shared

#: What the author of a plugin installs.
_AUTHORS = (".", "testing", "plugins/karpenter")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this run share."""
    mine = tmp_path_factory.getbasetemp()
    return mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine


@pytest.fixture(scope="session")
def wheels(shared_folder: Path) -> Wheels:
    """The wheels of our distributions."""
    return Wheels(shared_folder / "wheels")


@pytest.fixture(scope="session")
def authors_venv(wheels: Wheels, shared_folder: Path) -> FreshVenv:
    """An environment with kaito-core, kaito-testing and kaito-karpenter, which tests leave as it is."""
    folder = shared_folder / "venvs" / "author"
    with shared(folder) as is_new:
        if is_new:
            made = FreshVenv.create(folder)
            made.run("pip", "install", *(wheels.of(member) for member in _AUTHORS))
    return FreshVenv(folder)


@pytest.fixture
def venv(authors_venv: FreshVenv, shared_folder: Path, tmp_path: Path) -> FreshVenv:
    """An environment with what the author of a plugin installs, for one test."""
    copied = authors_venv.copy(tmp_path / "venv")
    copied.env["MYPY_CACHE_DIR"] = str(shared_folder / "mypy")  # what mypy knows of libraries is the same in all
    return copied
