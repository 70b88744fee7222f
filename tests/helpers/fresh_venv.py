"""A virtual environment as a user has it: kaito from wheels, no editable installs, and nothing downloaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from sysconfig import get_paths

ROOT = Path(__file__).parents[2]
#: What goes into a source distribution of each member; the repository's own build folders must not leak into a wheel.
_LEFT_OUT = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "tests", "bench")
_HANG_SECONDS = 300  # the bound of a hang, not a measure of speed
_SHIMS = ("pip", "pytest", "mypy")


def build_wheel(folder: Path, into: Path) -> Path:
    """Builds the wheel of a distribution from a copy of its sources, without a network."""
    into.mkdir(parents=True, exist_ok=True)
    copy = into / f"source-{folder.name}"
    if folder == ROOT:
        copy.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(folder / name, copy)
        shutil.copytree(folder / "kaito_core", copy / "kaito_core", ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copytree(folder, copy, ignore=_LEFT_OUT)
    before = set(into.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", into, copy], check=True)
    shutil.rmtree(copy)
    (wheel,) = set(into.glob("*.whl")) - before
    return wheel


class FreshVenv:
    """A new virtual environment that sees the third-party libraries of the running one, and nothing of kaito's.

    Attributes:
        folder: Where it is.
        env: Environment for commands in it: its programs come first, and pip asks no index.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        self._show_libraries()
        bin_folder = folder / "bin"
        for name in _SHIMS:
            shim = bin_folder / name
            shim.write_text(f'#!/bin/sh\nexec "{bin_folder}/python" -m {name} "$@"\n')
            shim.chmod(0o755)
        (bin_folder / "ruff").symlink_to(Path(sys.executable).with_name("ruff"))  # a program of its own, not Python
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("KAITO_", "PYTHON"))}
        self.env = {
            **inherited,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "VIRTUAL_ENV": str(folder),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip's spelling of --no-build-isolation
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_QUIET": "1",
        }

    def _show_libraries(self) -> None:
        # A folder of links, since the running environment's own folder also names its editable installs.
        libraries = self.folder / "libraries"
        libraries.mkdir()
        for item in Path(get_paths()["purelib"]).iterdir():
            if not item.name.lower().startswith(("kaito", "__editable__", "_kaito")) and item.suffix != ".pth":
                (libraries / item.name).symlink_to(item)
        (site,) = self.folder.glob("lib/python*/site-packages")
        (site / "libraries.pth").write_text(f"{libraries}\n")

    def run(self, *command: str | Path, cwd: Path | None = None) -> str:
        """Runs a command and returns what it prints; the test fails with it where the status is not 0."""
        result = self.try_run(*command, cwd=cwd)
        assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}"
        return result.stdout

    def try_run(self, *command: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """Runs a command whatever its status; stdout holds stderr too."""
        # The shell finds the program by the new PATH, as a user's does.
        return subprocess.run(
            ["/usr/bin/env", *map(str, command)],
            cwd=cwd or self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_HANG_SECONDS,
            check=False,
        )
