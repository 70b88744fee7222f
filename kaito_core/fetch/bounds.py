"""How large the files of an adapter may be: what their own first bytes say, before the rest is fetched."""

import json
from pathlib import Path
from typing import Any

from kaito_core.api.peft.json_objects import without_repeats
from kaito_core.errors import FetchError

__all__ = ["check_config", "header_bytes", "most_bytes", "tensor_bytes"]

_LARGEST_TEXT = 64 << 20  # bytes of a file that is not tensors; tokenizers have some megabytes
_LARGEST_CONFIG = 1 << 20
#: The safetensors library refuses longer ones too.
_LONGEST_HEADER = 100_000_000


def most_bytes(name: str, most: int) -> int:
    """Returns how many bytes a file of an adapter may have, where the whole adapter may have `most`."""
    if name.endswith(".safetensors"):
        return most
    return min(most, _LARGEST_CONFIG if name == "adapter_config.json" else _LARGEST_TEXT)


def header_bytes(path: Path) -> int | None:
    """Returns how long the header of a safetensors file is, its own length included; None while that is not there.

    Raises:
        FetchError: It is none that is read. The message reads on after the file's name.
    """
    with path.open("rb") as file:
        start = file.read(8)
    if len(start) < 8:
        return None
    length = int.from_bytes(start, "little")
    if not 2 <= length <= _LONGEST_HEADER:
        raise FetchError(
            f"is not a safetensors file: its header has {length:,} bytes by its own account, at most "
            f"{_LONGEST_HEADER:,} are read"
        )
    return 8 + length


def tensor_bytes(path: Path) -> int | None:
    """Returns how long a safetensors file is by its own header, None while that is not there whole.

    Raises:
        FetchError: It has no header that could be one. The message reads on after the file's name.

    Source: https://github.com/huggingface/safetensors#format
    """
    head = header_bytes(path)
    if head is None or path.stat().st_size < head:
        return None
    with path.open("rb") as file:
        text = file.read(head)[8:]
    header = _object(text, "has a damaged header")
    end: int = 0
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(o) is int for o in offsets)):
            raise FetchError(f"has a damaged header: tensor {key[:80]!r} has no data_offsets")
        if not 0 <= offsets[0] <= offsets[1]:
            raise FetchError(f"has a damaged header: tensor {key[:80]!r} has the data_offsets {offsets}")
        end = max(end, offsets[1])
    return head + end


def check_config(path: Path) -> None:
    """Raises FetchError unless a file is a JSON object; the message reads on after the file's name."""
    _object(path.read_bytes(), "is not valid JSON")


def _object(text: bytes, fault: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=without_repeats)
    except (ValueError, RecursionError) as error:
        raise FetchError(f"{fault}: {error or type(error).__name__}") from error
    if not isinstance(found, dict):
        raise FetchError(f"{fault}: it must be an object, got {type(found).__name__}")
    return found
