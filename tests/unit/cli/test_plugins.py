"""`kaito plugins` with working, odd and broken plugins."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.command_line import kaito

GOOD = "from kaito_core import hookimpl\n@hookimpl\ndef kaito_model_presets():\n    return []\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of plugins: one that works, one that is odd, one that is broken."""
    (tmp_path / "works.py").write_text(GOOD)
    (tmp_path / "odd.py").write_text(f"import os\nprint('hello')\nos.environ['KAITO_TEST_TOKEN'] = 'hush'\n{GOOD}")
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    return tmp_path


def plugins(folder: Path, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    return kaito("plugins", *arguments, KAITO_PLUGINS_DIR=str(folder), **env)


@pytest.mark.parametrize(("form", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_list_for_programs(folder: Path, form: str, read: Any) -> None:
    result = plugins(folder, "list", "-o", form)
    found = {plugin["name"]: plugin for plugin in read(result.stdout)}
    assert result.returncode == 0
    assert {name: found[name]["state"] for name in ("works", "odd", "broken", "falcon")} == {
        "works": "loaded",
        "odd": "loaded",
        "broken": "failed",
        "falcon": "loaded",
    }
    assert found["works"]["file"] == str(folder / "works.py")
    assert found["falcon"]["file"].endswith("kaito_falcon/plugin.py")
    assert found["falcon"]["distribution"].startswith("kaito-falcon ")
    assert found["falcon"]["import_seconds"] > 0
    assert found["odd"]["remarks"] == ["changed os.environ: KAITO_TEST_TOKEN"]
    assert "hush" not in result.stdout
    assert "no_such_module" in found["broken"]["traceback"]


def test_list_for_people(folder: Path) -> None:
    lines = plugins(folder, "list").stdout.splitlines()
    (broken,) = [line for line in lines if "no_such_module" in line]
    assert broken.split()[:3] == ["broken", str(folder / "broken.py"), "failed"]
    (falcon,) = [line for line in lines if line.split()[:1] == ["falcon"]]
    assert "4 presets" in falcon


def test_show_prints_one_record(folder: Path) -> None:
    broken = yaml.safe_load(plugins(folder, "show", "broken").stdout)
    assert broken["error"] == "ModuleNotFoundError: No module named 'no_such_module'"
    assert "Traceback" in broken["traceback"]
    falcon = json.loads(plugins(folder, "show", "falcon", "-o", "json").stdout)
    assert "falcon-7b" in falcon["presets"]
    unknown = plugins(folder, "show", "falcn")
    assert unknown.returncode == 1
    assert "error: unknown plugin 'falcn'; did you mean falcon?" in unknown.stderr


def test_doctor_explains_what_is_broken_and_what_is_odd(folder: Path) -> None:
    result = plugins(folder, "doctor")
    assert result.returncode == 1
    assert f"plugin 'broken' ({folder / 'broken.py'}) is left out\n  ModuleNotFoundError: No module" in result.stdout
    assert "Traceback (most recent call last)" in result.stdout
    assert f"plugin 'odd' ({folder / 'odd.py'}) works, but\n  it changed os.environ: KAITO_TEST_TOKEN" in result.stdout
    assert "'works'" not in result.stdout
    assert result.stdout.splitlines()[-1].endswith(" plugins, 1 broken")
    records = json.loads(plugins(folder, "doctor", "-o", "json").stdout)
    assert [record["name"] for record in records] == ["broken", "odd"]


def test_doctor_ends_with_status_0_if_nothing_is_broken(folder: Path) -> None:
    (folder / "broken.py").unlink()
    result = plugins(folder, "doctor")
    assert result.returncode == 0 and result.stdout.splitlines()[-1].endswith(" plugins, none broken")


@pytest.mark.parametrize("command", [("list",), ("doctor",)])
def test_strict_plugins_end_with_status_2_and_are_still_shown(folder: Path, command: tuple[str, ...]) -> None:
    result = plugins(folder, *command, KAITO_STRICT_PLUGINS="true")
    assert result.returncode == 2
    assert "no_such_module" in result.stdout


def test_a_missing_folder_is_named() -> None:
    result = plugins(Path("/no/such/folder"), "list")
    assert result.returncode == 1
    assert result.stderr == "error: KAITO_PLUGINS_DIR: '/no/such/folder' cannot be read: No such file or directory\n"
