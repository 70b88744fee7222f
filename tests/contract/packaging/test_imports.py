"""What starting the operator's side costs: no torch, no cluster client, no kopf before they are needed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kaito_testing.registry import example_preset

HEAVY = ["torch", "transformers", "triton", "peft", "kopf", "kubernetes"]
SCRIPT = """
import json, sys
from importlib_metadata import entry_points
import kaito_core.cli
loaded = [entry.name for entry in entry_points(group="kaito") if entry.load()]
heavy = [name for name in sys.argv[1:] if name in sys.modules]
print(json.dumps([loaded, heavy]))
"""


def test_operator_halves_and_the_command_line_import_nothing_heavy() -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *HEAVY], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    loaded, heavy = json.loads(result.stdout)
    assert {"builtin", "falcon", "llama", "gpu_azure", "gpu_onprem"} <= set(loaded)
    assert heavy == []


COMMAND = """
import sys
from kaito_core.cli import main
heavy, sys.argv[1:] = sys.argv[1].split(","), sys.argv[2:]
try:
    main()
finally:
    print([name for name in heavy if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    "command",
    [("plugins", "list"), ("plugins", "doctor"), ("presets", "search", "--fits", "Standard_NC24ads_A100_v4")],
    ids=" ".join,
)
def test_looking_at_plugins_and_presets_imports_nothing_heavy(command: tuple[str, ...], tmp_path: Path) -> None:
    record = {"apiVersion": "kaito.sh/v1", "kind": "ModelPreset", **example_preset(name="mine").model_dump(mode="json")}
    (tmp_path / "mine.yaml").write_text(json.dumps(record))
    result = subprocess.run(
        [sys.executable, "-c", COMMAND, ",".join(HEAVY), *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", "KAITO_PLUGINS_DIR": str(tmp_path)},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() == "[]"
