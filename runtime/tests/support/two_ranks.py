"""Runs `ranks_script`: two ranks of one process group."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parent / "ranks_script.py"


def run_two(folder: Path, wanted: str, *arguments: str) -> Any:
    """Runs `ranks_script` once per folder and returns what one of the ranks has found."""
    found = folder / f"{wanted}.json"
    if not found.exists():
        torchrun = Path(sys.executable).parent / "torchrun"
        command = [torchrun, "--standalone", "--nproc-per-node=2", SCRIPT, folder, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
        assert found.exists(), done.stderr
    return json.loads(found.read_text())
