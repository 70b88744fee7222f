"""What `kaito new` writes installs, passes its own tests, ruff and mypy, and is loaded."""

import json
from pathlib import Path

import pytest

from helpers.fresh_venv import FreshVenv
from kaito_core.scaffold import KINDS, write_package


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_works(kind: str, venv: FreshVenv, tmp_path: Path) -> None:
    said = venv.run("kaito", "new", kind, "acme", "--to", tmp_path)
    folder = tmp_path / "kaito-acme"
    assert f"wrote {folder}" in said
    venv.run("pip", "install", "--editable", f"{folder}[test]")
    assert " passed" in venv.run("pytest", "-p", "no:cacheprovider", cwd=folder)
    venv.run("ruff", "check", ".", cwd=folder)
    venv.run("ruff", "format", "--check", ".", cwd=folder)
    venv.run("mypy", "--strict", "src", "tests", cwd=folder)
    listed = json.loads(venv.run("kaito", "plugins", "list", "-o", "json"))
    (plugin,) = [found for found in listed if found["name"] != "builtin"]
    assert (plugin["state"], plugin["distribution"]) == ("loaded", "kaito-acme 0.1.0")
    assert len(plugin["presets"] + plugin["providers"] + plugin["sources"]) == 1


@pytest.mark.slow
def test_its_tests_fail_when_it_is_broken(venv: FreshVenv, tmp_path: Path) -> None:
    """Otherwise passing would say nothing."""
    folder, _ = write_package("model", "acme", tmp_path)
    presets = folder / "src/kaito_acme/presets.py"
    presets.write_text(presets.read_text().replace("memory_gib=2", "memory_gib=0.1"))
    venv.run("pip", "install", "--editable", folder)
    result = venv.try_run("pytest", "-p", "no:cacheprovider", cwd=folder)
    assert result.returncode == 1
    assert "memory_gib is 0.1, the weights and 2048 tokens need" in result.stdout
