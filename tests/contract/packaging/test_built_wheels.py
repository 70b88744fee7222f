"""The wheels that a release uploads: what is in each, what an index says of it, and what pip installs with it."""

import json
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from helpers.distributions import FOLDERS, ROOT, project
from helpers.fresh_venv import Wheels

pytestmark = pytest.mark.slow

OPERATOR = {"kopf", "kubernetes", "cryptography", "aiohttp"}
HEAVY = {"torch", "transformers", "triton", "peft"}


@pytest.fixture(scope="module")
def built(wheels: Wheels) -> Path:
    """A folder with every distribution."""
    for member in FOLDERS:
        wheels.of(member)
    return wheels.folder


def resolved(built: Path, *requirements: str) -> set[str]:
    """Returns the names of what pip would install into an empty environment."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"]
    result = subprocess.run(
        [*command, "--find-links", built, *requirements], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    return {item["metadata"]["name"].lower().replace("_", "-") for item in report["install"]}


@pytest.mark.parametrize("folder", FOLDERS)
def test_wheel_holds_the_package_its_licence_and_nothing_else(folder: str, built: Path) -> None:
    package = project(folder)["name"].replace("-", "_")
    (wheel,) = built.glob(f"{package}-*.whl")
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {package}
    assert f"{package}/py.typed" in names
    source = ROOT if folder == "." else ROOT / folder / "src"
    expected = {str(path.relative_to(source)) for path in (source / package).rglob("*.py")}
    assert expected == {name for name in names if name.endswith(".py")}
    (licence,) = [name for name in names if name.endswith("dist-info/licenses/LICENSE")]
    assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    (metadata,) = [name for name in names if name.endswith("dist-info/METADATA")]
    fields = message_from_bytes(archive.read(metadata))
    assert fields.get_all("Project-URL") and fields.get_all("Classifier") and fields["Keywords"]


def test_an_index_accepts_all_of_them(built: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *sorted(built.glob("*.whl"))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("PASSED") == len(FOLDERS)


def test_models_and_clouds_need_nothing_of_the_operator(built: Path) -> None:
    names = resolved(built, "kaito-falcon", "kaito-gpu-azure", "kaito-gpu-onprem")
    assert {"kaito-core", "kaito-falcon", "kaito-karpenter", "pluggy", "pydantic"} <= names
    assert not names & (OPERATOR | HEAVY)


def test_the_server_needs_nothing_of_the_operator_and_boto3_installs_beside_it(built: Path) -> None:
    names = resolved(built, "kaito-runtime", "boto3")
    assert {"kaito-core", "kaito-runtime", "boto3", "python-dateutil"} <= names
    assert not names & (OPERATOR | HEAVY)


def test_the_operator_is_an_extra(built: Path) -> None:
    names = resolved(built, "kaito-core[operator]")
    assert names >= OPERATOR
    assert not names & HEAVY
