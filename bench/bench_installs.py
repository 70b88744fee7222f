"""Measures installations: the packages and the disk space of fresh environments for common requirements, without torch.

Other checkouts given as arguments are measured too, to compare commits: `bench_installs.py ../before`.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ("kaito-falcon", "kaito-runtime", "kaito-core[operator]")


def build_wheels(checkout: Path, into: Path) -> None:
    """Builds the wheels of all distributions of a checkout."""
    members = [checkout, *(path.parent for path in checkout.glob("*/pyproject.toml"))]
    members += [path.parent for path in checkout.glob("plugins/*/pyproject.toml")]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(into), *map(str, members)], check=True)


def installed(wheels: Path, requirement: str) -> tuple[int, float]:
    """Returns the number of packages that a requirement installs, and their size in MB."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", str(site)]
        subprocess.run([*command, "--find-links", str(wheels), requirement], check=True, stderr=subprocess.DEVNULL)
        size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
        return len(list(site.glob("*.dist-info"))), size / 1e6


def lines_of_wheel(wheels: Path, package: str) -> int:
    """Returns the number of lines of Python in a wheel."""
    (wheel,) = wheels.glob(f"{package}-*.whl")
    archive = zipfile.ZipFile(wheel)
    return sum(archive.read(name).count(b"\n") for name in archive.namelist() if name.endswith(".py"))


def fullest_folders(checkout: Path) -> list[tuple[str, int]]:
    """Returns the five folders with the most Python files, and the number of files."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=checkout, capture_output=True, text=True, check=True)
    folders: dict[str, int] = {}
    for name in listed.stdout.splitlines():
        folder = str(Path(name).parent)
        folders[folder] = folders.get(folder, 0) + 1
    return sorted(folders.items(), key=lambda item: -item[1])[:5]


def measure(checkout: Path) -> dict[str, object]:
    """Returns the figures of one checkout."""
    with tempfile.TemporaryDirectory() as folder:
        wheels = Path(folder)
        build_wheels(checkout, wheels)
        figures: dict[str, object] = {}
        for requirement in REQUIREMENTS:
            packages, megabytes = installed(wheels, requirement)
            figures[requirement] = f"{packages} packages, {megabytes:.0f} MB"
        figures["lines of kaito-core's wheel"] = lines_of_wheel(wheels, "kaito_core")
        figures["files of the fullest folders"] = ", ".join(
            f"{name} {count}" for name, count in fullest_folders(checkout)
        )
        return figures


def main() -> None:
    """Measures, and prints a table of each checkout."""
    for checkout in [*map(Path, sys.argv[1:]), ROOT]:
        print(checkout.resolve().name)
        print(json.dumps(measure(checkout.resolve()), indent=2))


if __name__ == "__main__":
    main()
