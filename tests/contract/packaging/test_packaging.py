"""Every distribution: installable alone, in step with the others, and whole when built."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = (
    *(
        ".",
        "testing",
        "runtime",
        "plugins/karpenter",
        "plugins/falcon",
        "plugins/llama",
        "plugins/mistral",
        "plugins/phi",
        "plugins/qwen",
    ),
    *("plugins/gpu_aws", "plugins/gpu_azure", "plugins/gpu_onprem"),
)


def project(folder: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]


def test_every_member_is_listed_here() -> None:
    found = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("plugins/*/pyproject.toml")}
    assert found == {folder for folder in FOLDERS if folder.startswith("plugins/")}


def test_versions_are_in_step_and_pinned_to_one_another() -> None:
    version = project(".")["version"]
    for folder in FOLDERS[1:]:
        member = project(folder)
        assert member["version"] == version, folder
        assert f"kaito-core=={version}" in member["dependencies"], folder


def test_no_distribution_needs_torch_unless_asked() -> None:
    for folder in FOLDERS:
        needed = " ".join(project(folder)["dependencies"])
        assert not any(name in needed for name in ("torch", "transformers", "peft", "triton")), folder


def test_constraints_pin_torch_first_and_everything_exactly() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "torch==2.13.0"
    assert all("==" in line for line in lines)


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_wheel_holds_the_package_and_nothing_else(folder: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", tmp_path, ROOT / folder], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    package = project(folder)["name"].replace("-", "_")
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {package}
    assert f"{package}/py.typed" in names
    source = ROOT if folder == "." else ROOT / folder / "src"
    expected = {str(path.relative_to(source)) for path in (source / package).rglob("*.py")}
    assert expected == {name for name in names if name.endswith(".py")}
