"""`kaito new`: what it writes, and what it refuses."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers.distributions import FOLDERS, project
from kaito_core.errors import ConfigError
from kaito_core.scaffold import KINDS, write_package

LONGEST = "a-name-of-just-30-characters-x"


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
    assert "kaito-acme exists already and was not changed" in again.stderr


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kaito-acme").mkdir()
    (tmp_path / "kaito-acme" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
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
        ("builtin", "which is the plugin in kaito-core"),
        ("core", "kaito-core is a distribution of the kaito project"),
        ("falcon", "kaito-falcon is a distribution of the kaito project"),
    ],
)
def test_names_that_are_refused(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        write_package("model", name, tmp_path)
    assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_names_of_our_distributions_are_refused(tmp_path: Path) -> None:
    for name in (project(folder)["name"].removeprefix("kaito-") for folder in FOLDERS):
        with pytest.raises(ConfigError, match=f"kaito-{name} is a distribution of the kaito project"):
            write_package("model", name, tmp_path)


def test_names_of_installed_distributions_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "kaito_acme-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kaito-acme\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"kaito-acme 1\.2 is installed; uninstall it first"):
        write_package("model", "acme", tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_requires_the_distributions_that_it_imports(kind: str, tmp_path: Path) -> None:
    folder, _ = write_package(kind, "acme", tmp_path)
    metadata = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    needed = {name.partition(">=")[0] for name in metadata["dependencies"]}
    for_tests = needed | {name.partition(">=")[0] for name in metadata["optional-dependencies"]["test"]}
    assert imported(folder / "src") == needed
    assert imported(folder / "tests") <= for_tests


def imported(folder: Path) -> set[str]:
    """Returns the distributions of ours that the code of a folder imports."""
    code = "\n".join(path.read_text() for path in folder.rglob("*.py"))
    packages = set(re.findall(r"^ *(?:from|import) (kaito_\w+)", code, re.MULTILINE)) - {"kaito_acme"}
    return {package.replace("_", "-") for package in packages}


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--to must be an existing folder, got '.*missing'"):
        write_package("model", "acme", tmp_path / "missing")
