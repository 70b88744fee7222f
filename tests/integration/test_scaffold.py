"""`kaito new`: what it writes installs, passes its own tests, ruff and mypy, and is loaded; what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.fresh_venv import FreshVenv
from kaito_core.errors import ConfigError
from kaito_core.scaffold import KINDS, write_package

LONGEST = "a-name-of-just-30-characters-x"


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


@pytest.mark.parametrize("kind", KINDS)
def test_no_line_is_too_long_for_the_longest_name(kind: str, tmp_path: Path) -> None:
    folder, _ = write_package(kind, LONGEST, tmp_path)
    ruff = Path(sys.executable).with_name("ruff")
    for command in (["check"], ["format", "--check"]):
        subprocess.run([ruff, *command, "--no-cache", "."], cwd=folder, check=True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_to_edit_first_is_there(kind: str, tmp_path: Path) -> None:
    folder, edit = write_package(kind, "acme", tmp_path)
    assert folder == tmp_path / "kaito-acme"
    assert edit
    assert all((folder / path).is_file() for path in edit)
    assert [path.name for path in tmp_path.iterdir()] == ["kaito-acme"]
    for path in folder.rglob("*"):
        assert path.is_dir() or "$" not in path.read_text(), f"{path}: a placeholder is left"


def test_the_command_says_what_to_edit_first(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kaito_core.cli", "new", "model", "acme", "--to", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "edit first:\n  src/kaito_acme/presets.py: the model" in result.stdout
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (1, "")
    assert "kaito-acme is there already, and is left as it is" in again.stderr


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kaito-acme").mkdir()
    (tmp_path / "kaito-acme" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is there already"):
        write_package("model", "acme", tmp_path)
    assert [path.name for path in (tmp_path / "kaito-acme").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "NAME must be lower-case letters"),
        ("Acme", "got 'Acme'"),
        ("acme_gpu", "got 'acme_gpu'"),
        ("-acme", "got '-acme'"),
        ("acme--gpu", "got 'acme--gpu'"),
        ("7acme", "start with a letter"),
        ("../acme", "got '../acme'"),
        ("acmé", "got 'acmé'"),
        (f"{LONGEST}y", "at most 30 characters"),
        ("kaito-acme", "use 'acme'"),
        ("core", "must not be one of kaito's own"),
        ("llama", "kaito-llama 0.1.0 is installed"),
    ],
)
def test_names_that_are_refused(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        write_package("model", name, tmp_path)
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no folder; make it first"):
        write_package("model", "acme", tmp_path / "missing")
