"""Helper modules of the contract tests lie beside them, where importlib mode does not look."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
