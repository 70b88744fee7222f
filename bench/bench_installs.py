"""What an installation costs: packages and disk of a fresh environment for each of the usual wishes, without torch.

Takes another checkout as argument, so that two commits are measured side by side: `bench_installs.py ../before`.
"""

import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WISHES = ("kaito-falcon", "kaito-runtime", "kaito-core[operator]")


def build_wheels(checkout: Path, into: Path) -> None:
    """Builds all distributions of a checkout."""
    members = [checkout, *(path.parent for path in checkout.glob("*/pyproject.toml"))]
    members += [path.parent for path in checkout.glob("plugins/*/pyproject.toml")]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", into, *members], check=True)


def installed(wheels: Path, wish: str) -> tuple[int, float]:
    """Returns how many packages a wish brings, and how many MB they take."""
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder) / "site"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target", site]
        subprocess.run([*command, "--find-links", wheels, wish], check=True, stderr=subprocess.DEVNULL)
        size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
        return len(list(site.glob("*.dist-info"))), size / 1e6


def lines_of_wheel(wheels: Path, package: str) -> int:
    """Returns how many lines of Python a wheel holds."""
    (wheel,) = wheels.glob(f"{package}-*.whl")
    archive = zipfile.ZipFile(wheel)
    return sum(archive.read(name).count(b"\n") for name in archive.namelist() if name.endswith(".py"))


def fullest_folders(checkout: Path) -> list[tuple[str, int]]:
    """Returns the folders with the most Python files, largest first."""
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
        for wish in WISHES:
            packages, megabytes = installed(wheels, wish)
            figures[wish] = f"{packages} packages, {megabytes:.0f} MB"
        figures["lines of kaito-core's wheel"] = lines_of_wheel(wheels, "kaito_core")
        figures["files of the fullest folders"] = ", ".join(
            f"{name} {count}" for name, count in fullest_folders(checkout)
        )
        return figures


def main() -> None:
    """Measures and prints."""
    for checkout in [*map(Path, sys.argv[1:]), ROOT]:
        print(checkout.resolve().name)
        print(json.dumps(measure(checkout.resolve()), indent=2))


if __name__ == "__main__":
    main()
