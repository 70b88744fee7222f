"""The record of what a real API server said of our CRD, and which part of a CRD its verdict depends on."""

import hashlib
import json
from pathlib import Path
from typing import Any

__all__ = ["RECORD", "digest", "read_record", "write_record"]

RECORD = Path(__file__).parents[1] / "data" / "crd-acceptance.json"


def digest(crd: dict[str, Any]) -> str:
    """Returns the SHA-256 of what an API server judges: the spec without descriptions, messages and categories."""
    spec = _without_words(crd["spec"])
    spec["names"].pop("categories", None)
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _without_words(node: Any, *, names: bool = False) -> Any:
    """Returns a copy without descriptions and rules' messages; in `names`, which maps names to schemas, they are names.

    Of a message a server asks only that it is one line of at most 2048 characters.
    """
    if isinstance(node, dict):
        words = {"description", "message"} if "rule" in node else {"description"}
        return {
            key: _without_words(value, names=key == "properties" and not names)
            for key, value in node.items()
            if names or key not in words
        }
    return [_without_words(item) for item in node] if isinstance(node, list) else node


def read_record() -> dict[str, Any]:
    """Returns the record."""
    found: dict[str, Any] = json.loads(RECORD.read_text())
    return found


def write_record(**record: str) -> None:
    """Writes the record anew."""
    RECORD.write_text(json.dumps(record, indent=2) + "\n")
