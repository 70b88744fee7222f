"""The distributions of this repository, and what their project files say."""

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FOLDERS = (
    *(".", "testing", "runtime", "plugins/karpenter", "plugins/falcon", "plugins/llama", "plugins/mistral"),
    *("plugins/phi", "plugins/qwen", "plugins/gpu_aws", "plugins/gpu_azure", "plugins/gpu_onprem"),
)


def project(folder: str) -> dict[str, Any]:
    """Returns the table [project] of a member."""
    found: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    return found
