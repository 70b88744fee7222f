"""The command as a whole: what it imports, how it is interrupted, and what broken plugins do to it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.command_line import kaito

FALCON = Path(__file__).parents[3] / "examples" / "falcon-7b-with-adapter.yaml"


def test_presets_are_listed_without_importing_torch() -> None:
    code = (
        "import sys; from kaito_core.cli import main\n"
        "heavy = ('torch', 'transformers', 'kopf', 'kubernetes')\n"
        "try: main()\n"
        "finally: print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "presets", "list", "-o", "json"], capture_output=True, text=True, timeout=60
    )
    presets = {preset["name"]: preset for preset in json.loads(result.stdout)}
    assert {"falcon-7b", "llama-2-70b-chat", "llama-3.3-70b-instruct", "smollm2-135m-instruct"} <= set(presets)
    assert presets["falcon-7b"]["plugin"] == "falcon"
    assert presets["llama-2-13b"]["workload"] == "StatefulSet"
    assert result.stderr.strip() == "[]"


@pytest.mark.parametrize("module", ["kaito_core.cli.app", "kaito_core.plugins.registry", "kaito_falcon.plugin"])
def test_ctrl_c_while_it_starts_prints_no_traceback(module: str) -> None:
    """Ctrl-C is pressed at the moment at which a module is imported."""
    code = (
        "import signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name == '{module}': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from kaito_core.cli import main\n"
        "main()"
    )
    result = subprocess.run([sys.executable, "-c", code, "presets", "list"], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


def test_a_shell_can_complete_commands() -> None:
    completed = kaito(_KAITO_COMPLETE="complete_bash", COMP_WORDS="kaito pre", COMP_CWORD="1")
    assert completed.stdout.split() == ["presets"]


def test_the_list_of_commands_cuts_no_sentence() -> None:
    commands = kaito("--help", COLUMNS="80").stdout.partition("Commands:")[2].splitlines()[1:]
    assert len(commands) >= 10
    assert all(line.endswith(".") and not line.endswith("...") for line in commands)


def test_a_broken_plugin_is_named_and_stops_a_strict_start(tmp_path: Path) -> None:
    info = tmp_path / "broken-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[kaito]\nbroken = broken_plugin\n")
    (tmp_path / "broken_plugin.py").write_text("import no_such_module\n")
    env = {"PYTHONPATH": str(tmp_path)}
    lenient, doctor = kaito("validate", FALCON, **env), kaito("plugins", "doctor", **env)
    assert lenient.returncode == 0 and "plugin 'broken' of broken 1.2 is left out" in lenient.stderr
    assert doctor.returncode == 1 and "no_such_module" in doctor.stdout and "Traceback" in doctor.stdout
    assert kaito("--strict-plugins", "presets", "list", **env).returncode == 2
    assert kaito("plugins", "list", KAITO_STRICT_PLUGINS="true", **env).returncode == 2


def test_the_deny_list_leaves_a_plugin_out() -> None:
    result = kaito("plugins", "list", "-o", "json", KAITO_PLUGINS_DENY="falcon")
    states = {plugin["name"]: plugin["state"] for plugin in json.loads(result.stdout)}
    assert states["falcon"] == "skipped" and states["llama"] == "loaded"
    unknown = kaito("validate", FALCON, KAITO_PLUGINS_DENY="falcon")
    assert unknown.returncode == 1 and "'falcon-7b' is not an installed preset" in unknown.stdout
