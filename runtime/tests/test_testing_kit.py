"""The public test kit: it is imported without pytest, and what it names is there."""

import importlib
import subprocess
import sys

import pytest

MODULES = ("harness", "models", "truth")


@pytest.mark.slow
def test_the_kit_is_imported_without_pytest() -> None:
    imports = "; ".join(f"import kaito_runtime.testing.{name}" for name in MODULES)
    code = f"import sys; sys.modules['pytest'] = None; {imports}"  # None: an import of it raises
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_what_a_module_offers_is_there_and_documented(name: str) -> None:
    module = importlib.import_module(f"kaito_runtime.testing.{name}")
    for offered in module.__all__:
        found = getattr(module, offered)
        assert not callable(found) or found.__doc__, f"{offered} has no docstring"
