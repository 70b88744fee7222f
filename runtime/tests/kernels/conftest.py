"""Which kernel tests run in this process.

A process either interprets or compiles Triton kernels. A plain run compiles: `interpret` is left out of it, and
`test_processes.py` starts it apart. `TRITON_INTERPRET=1`, or naming that folder alone, turns it round.
"""

import os
from pathlib import Path


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    interpreting = os.environ.get("TRITON_INTERPRET") == "1"
    left_out = ("static", "launch") if interpreting else ("interpret",)
    return True if collection_path.parent == Path(__file__).parent and collection_path.name in left_out else None
