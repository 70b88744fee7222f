"""The record of what a real API server said of our CRD, and which part of a CRD its verdict depends on."""

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["RECORD", "digest", "read_record", "write_record"]

RECORD = Path(__file__).parents[1] / "data" / "crd-acceptance.json"


def digest(crd: dict[str, Any]) -> str:
    """Returns the SHA-256 of what an API server judges: the spec without descriptions and categories."""
    spec = _without_descriptions(crd["spec"])
    spec["names"].pop("categories", None)
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _without_descriptions(node: Any, *, names: bool = False) -> Any:
    """Returns a copy without the keyword `description`; in `names`, which maps names to schemas, it is a name."""
    if isinstance(node, dict):
        return {
            key: _without_descriptions(value, names=key == "properties" and not names)
            for key, value in node.items()
            if names or key != "description"
        }
    return [_without_descriptions(item) for item in node] if isinstance(node, list) else node


def read_record() -> dict[str, Any]:
    """Returns the record."""
    found: dict[str, Any] = json.loads(RECORD.read_text())
    return found


def write_record(**record: str) -> None:
    """Writes the record anew."""
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
