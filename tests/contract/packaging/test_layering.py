"""Who may import whom: the contracts in pyproject.toml, [tool.importlinter]."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = (".", "runtime/src", "testing/src", *(f"plugins/{path.name}/src" for path in (ROOT / "plugins").iterdir()))


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Runs the linter over the sources under a folder."""
    linter = Path(sys.executable).with_name("lint-imports")
    path = os.pathsep.join(str(root / source) for source in SOURCES)
    return subprocess.run(
        [linter, "--no-cache", "--no-logo"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_imports_go_where_they_may() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Contracts: 9 kept, 0 broken." in result.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        (
            "runtime/src/kaito_runtime/errors.py",
            "from kaito_runtime.options import ServeOptions",
            "The rooms of kaito_runtime import downwards only BROKEN",
        ),
        (
            "runtime/src/kaito_runtime/lora/pages.py",
            "from kaito_runtime.lora.bank import Bank",
            "Nothing imports in a circle BROKEN",
        ),
        ("kaito_core/errors.py", "from kaito_core.settings import Settings", "kaito_core import downwards only BROKEN"),
    ],
    ids=lambda value: Path(value).stem if "/" in value else "",
)
def test_an_import_for_annotations_counts_as_any_other(file: str, line: str, broken: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for source in SOURCES:
        for package in (ROOT / source).glob("kaito_*"):
            if (package / "__init__.py").is_file():
                shutil.copytree(package, tmp_path / source / package.name)
    with (tmp_path / file).open("a") as planted:
        planted.write(f"\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    {line}\n")
    result = lint(tmp_path)
    assert result.returncode == 1
    assert broken in result.stdout
