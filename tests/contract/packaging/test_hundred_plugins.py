"""A hundred installed third-party plugins, ten of them broken, each in its own way: ninety work and ten are named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kaito_testing.installed import PRESET_PLUGIN, install_plugin

pytestmark = pytest.mark.slow

HEAD = "from kaito_core import hookimpl\n@hookimpl\ndef kaito_model_presets():\n"

#: What: (module, words of the error, words of the traceback).
BROKEN = {
    "import-error": ("import dummy_absent", "No module named 'dummy_absent'", "import dummy_absent"),
    "syntax-error": ("def (", "SyntaxError", "def ("),
    "exit-at-import": ("raise SystemExit(3)", "SystemExit: 3", "raise SystemExit(3)"),
    "recursion": ("def f(): g()\ndef g(): f()\nf()", "RecursionError", "def g(): f()"),
    "wrong-type": (f"{HEAD}    return 'falcon'", "must return a list of ModelPreset, got str", "TypeError"),
    "duplicate": (
        PRESET_PLUGIN.format(name="dummy-00"),
        "the preset 'dummy-00' is provided by dummy-00 (kaito-dummy-00 1.0) and by x-duplicate (kaito-x-duplicate 1.0)",
        "PluginConflictError",
    ),
    "hook-raises": (f"{HEAD}    raise OSError('disk on fire')", "OSError: disk on fire", "in kaito_model_presets"),
    "late-generator": (
        f"{HEAD}    yield from ()\n    raise KeyError('late')",
        "KeyError: 'late'",
        "in kaito_model_presets",
    ),
    "future-api": ("raise SystemExit('imported')", "asks for plugin API v9, this kaito-core has v1", "check_api"),
    "misspelt-hook": (
        "from kaito_core import hookimpl\n@hookimpl\ndef kaito_model_preset(): return []",
        "unknown hook 'kaito_model_preset'",
        "check_pending",
    ),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    for number in range(90):
        install_plugin(folder, f"dummy-{number:02}", PRESET_PLUGIN.format(name=f"dummy-{number:02}"))
    for what, (text, _, _) in BROKEN.items():
        install_plugin(folder, f"x-{what}", text, api="v9" if what == "future-api" else "")
    return folder


def kaito(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "kaito_core.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(site)},
    )


def test_ninety_work_and_each_of_ten_is_named_with_distribution_and_cause(site: Path) -> None:
    result = kaito(site, "plugins", "list", "-o", "json")
    assert result.returncode == 0, result.stderr
    plugins = {
        p["name"]: p for p in json.loads(result.stdout) if p["distribution"].startswith(("kaito-dummy", "kaito-x"))
    }
    assert len(plugins) == 100
    loaded = [p for p in plugins.values() if p["state"] == "loaded"]
    assert [p["presets"] for p in loaded] == [[f"dummy-{number:02}"] for number in range(90)]
    for what, (_, error, traceback) in BROKEN.items():
        broken = plugins[f"x-{what}"]
        assert (broken["state"], broken["distribution"]) == ("failed", f"kaito-x-{what} 1.0")
        assert error in broken["error"], what
        assert traceback in broken["traceback"], what
    presets = json.loads(kaito(site, "presets", "search", "dummy", "-o", "json").stdout)
    assert [preset["name"] for preset in presets] == [f"dummy-{number:02}" for number in range(90)]


def test_the_table_and_the_doctor_name_each_of_ten(site: Path) -> None:
    table, doctor = kaito(site, "plugins", "list"), kaito(site, "plugins", "doctor")
    assert doctor.returncode == 1
    for what in BROKEN:
        assert f"kaito-x-{what} 1.0" in table.stdout
        assert f"plugin 'x-{what}' of kaito-x-{what} 1.0 (x_{what.replace('-', '_')}) is left out" in doctor.stdout
    assert doctor.stdout.count("Traceback (most recent call last)") >= len(BROKEN)
    assert doctor.stdout.splitlines()[-1].endswith(" plugins, 10 broken")


def test_strict_plugins_end_with_status_2(site: Path) -> None:
    for command in (("plugins", "list"), ("presets", "list")):
        assert kaito(site, "--strict-plugins", *command).returncode == 2
