"""What starting the operator's side costs: no torch, no cluster client, no kopf before they are needed."""

import json
import subprocess
import sys

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
