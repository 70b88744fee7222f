"""The kernel tests' helpers are in `kernel_cases.py`, which importlib mode does not find alone.

A process either interprets or compiles Triton kernels. A plain run compiles: `interpret` is left out of it, and
`test_processes.py` starts it apart. `TRITON_INTERPRET=1`, or naming that folder alone, turns it round.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    interpreting = os.environ.get("TRITON_INTERPRET") == "1"
    left_out = ("static", "launch") if interpreting else ("interpret",)
    return True if collection_path.parent == Path(__file__).parent and collection_path.name in left_out else None
