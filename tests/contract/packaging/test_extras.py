"""kaito-core without its extra `operator`: every command but one works, and that one says what to install."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
COMMAND = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent, sys.argv[1:] = sys.argv[1].split(","), sys.argv[2:]
sys.meta_path.insert(0, Absent())
from kaito_core.cli import main
main()
"""
#: What the extra brings, by the names of its modules.
MODULES = {"python-json-logger": "pythonjsonlogger", "prometheus-client": "prometheus_client"}


def extra() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[^-\w]", line)[0] for line in project["optional-dependencies"]["operator"]]
    return [MODULES.get(name, name) for name in names]


def kaito(*arguments: str, absent: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", COMMAND, ",".join(absent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("module", extra())
def test_the_operator_says_what_to_install(module: str) -> None:
    result = kaito("operator", absent=[module])
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: kaito operator needs the package '{module}', which is not installed: "
        "pip install 'kaito-core[operator]'\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("install", "--webhook"),
        ("crd",),
        ("render", str(ROOT / "examples" / "smollm2-with-adapters.yaml")),
        ("validate", str(ROOT / "examples" / "smollm2-with-adapters.yaml")),
        ("operator", "--help"),
        ("presets", "list"),
        ("plugins", "doctor"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_other_commands_work(arguments: tuple[str, ...]) -> None:
    result = kaito(*arguments, absent=extra())
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout


def test_up_gets_as_far_as_the_workspace(tmp_path: Path) -> None:
    pod = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
    workspace = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "w"},
        "inference": {"template": pod},
    }
    file = tmp_path / "workspace.yaml"
    file.write_text(yaml.safe_dump(workspace))
    result = kaito("up", str(file), absent=extra())
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("error: inference.template cannot be ")
