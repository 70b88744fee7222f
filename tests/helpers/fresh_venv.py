"""A virtual environment as a user has it: kaito from wheels, no editable installs, and nothing downloaded.

Wheels and an environment with them are made once in a run; `tests/conftest.py` gives each test a copy.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from sysconfig import get_paths

from helpers.distributions import ROOT

__all__ = ["FreshVenv", "Wheels", "build_wheel", "shared"]

#: What goes into a source distribution of each member; the repository's own build folders must not leak into a wheel.
_LEFT_OUT = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", "tests", "bench")
_HANG_SECONDS = 300  # the bound of a hang, not a measure of speed
_SHIMS = ("pip", "pytest", "mypy")


@contextmanager
def shared(folder: Path) -> Iterator[bool]:
    """Holds a folder that the workers of a run share, and yields whether it still has to be filled."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not folder.exists()


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


class Wheels:
    """The wheels of our distributions, each built once in a run.

    Attributes:
        folder: Where they are, for pip's --find-links.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def of(self, member: str) -> Path:
        """Returns the wheel of a distribution by its folder in the repository, "." for kaito-core."""
        apart = self.folder.with_name("built") / (Path(member).name or "core")
        with shared(apart) as is_new:
            if is_new:
                shutil.copy(build_wheel(ROOT if member == "." else ROOT / member, apart), self.folder)
        (wheel,) = apart.glob("*.whl")
        return self.folder / wheel.name


class FreshVenv:
    """A virtual environment that sees the third-party libraries of the running one, and nothing of kaito's.

    Attributes:
        folder: Where it is.
        env: Environment for commands in it: its programs come first, and pip asks no index.
    """

    def __init__(self, folder: Path) -> None:
        """Opens an environment; `create` and `copy` make one."""
        self.folder = folder
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("KAITO_", "PYTHON"))}
        self.env = {
            **inherited,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "VIRTUAL_ENV": str(folder),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip's spelling of --no-build-isolation
            "PIP_NO_DEPS": "1",
            "PIP_NO_INDEX": "1",
            "PIP_QUIET": "1",
        }

    @classmethod
    def create(cls, folder: Path) -> "FreshVenv":
        """Makes an environment."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        libraries = folder.with_name("libraries")
        if not libraries.exists():
            _link_libraries(libraries)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "libraries.pth").write_text(f"{libraries}\n")
        for name in _SHIMS:
            shim = folder / "bin" / name
            shim.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {name} "$@"\n')
            shim.chmod(0o755)
        (folder / "bin" / "ruff").symlink_to(Path(sys.executable).with_name("ruff"))  # a program, not a Python module
        return cls(folder)

    def copy(self, folder: Path) -> "FreshVenv":
        """Makes an environment like this one, with what is installed in it."""
        shutil.copytree(self.folder, folder, symlinks=True)
        for program in (folder / "bin").iterdir():
            if not program.is_symlink():
                program.write_text(program.read_text().replace(str(self.folder), str(folder)))
        return FreshVenv(folder)

    def run(self, *command: str | Path, cwd: Path | None = None) -> str:
        """Runs a command and returns what it prints; the test fails with that if the status is not 0."""
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


def _link_libraries(folder: Path) -> None:
    """Links the installed libraries: the running environment's own folder also names its editable installs."""
    folder.mkdir()
    for item in Path(get_paths()["purelib"]).iterdir():
        if not item.name.lower().startswith(("kaito", "__editable__", "_kaito")) and item.suffix != ".pth":
            (folder / item.name).symlink_to(item)
