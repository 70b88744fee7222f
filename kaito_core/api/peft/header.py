"""The tensors of a safetensors file without torch: names, types and shapes from its header, and the largest value.

Source: https://github.com/huggingface/safetensors (format)
"""

import json
import math
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kaito_core.api.peft.json_objects import without_repeats

__all__ = ["HeaderError", "TensorEntry", "largest_value", "read_header"]

_LONGEST = 100_000_000  # bytes of a header, the limit of the format's own reader
_CHUNK = 1 << 24
#: Bytes of an element; what an adapter may hold.
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_OTHERS = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "F8_E8M0": 1, "I16": 2, "U16": 2} | {
    "I32": 4, "U32": 4, "I64": 8, "U64": 8, "C64": 8
}  # fmt: skip
# The byte with sign and upper exponent bits of values above 65504, and of many below: these are looked at one by one.
_LARGE_TOPS = {
    "F64": re.compile(rb"[\x40-\x7f\xc0-\xff]"),
    "F32": re.compile(rb"[\x47-\x7f\xc7-\xff]"),
    "BF16": re.compile(rb"[\x47-\x7f\xc7-\xff]"),
    "F16": re.compile(rb"[\x7b-\x7f\xfb-\xff]"),
}


class HeaderError(ValueError):
    """A file that is no whole safetensors file."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file.

    Attributes:
        dtype: As the format names it, such as "BF16".
        shape: Its sizes.
        start: Where its data begin in the file, in bytes.
        nbytes: How long they are.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    @property
    def is_float(self) -> bool:
        """Whether it holds floating-point numbers of 16 bits or more."""
        return self.dtype in _SIZES


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Returns the tensors of a file by name.

    Raises:
        HeaderError: The file is damaged: its header and its length do not belong together.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
        if not 0 <= length <= min(_LONGEST, size - 8):
            raise HeaderError("it is cut off in its header, or it is no safetensors file")
        try:
            header = json.loads(file.read(length), object_pairs_hook=without_repeats)
        except (ValueError, RecursionError) as error:
            raise HeaderError(f"its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise HeaderError("its header is not a JSON object")
    header.pop("__metadata__", None)
    entries = {name: _entry(name, value, 8 + length) for name, value in header.items()}
    end = 8 + length
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].nbytes)):
        if entry.start != end:
            raise HeaderError(f"the data of '{name}' overlap those of another tensor, or leave a gap")
        end += entry.nbytes
    if end != size:
        raise HeaderError(f"it has {size} bytes, and its header needs {end}")
    return entries


def _entry(name: str, value: Any, base: int) -> TensorEntry:
    try:
        dtype, shape, (start, end) = value["dtype"], tuple(value["shape"]), value["data_offsets"]
    except (KeyError, TypeError, ValueError) as error:
        raise HeaderError(f"the entry of '{name}' is not complete") from error
    size = (_SIZES | _OTHERS).get(dtype if isinstance(dtype, str) else "")
    if size is None:
        raise HeaderError(f"'{name}' has an unknown dtype {dtype!r}")
    if not all(type(number) is int and number >= 0 for number in (*shape, start, end)):
        raise HeaderError(f"the entry of '{name}' has sizes that are no numbers")
    if end - start != math.prod(shape) * size:
        raise HeaderError(f"'{name}' has {end - start} bytes, and its shape {list(shape)} needs another number")
    return TensorEntry(dtype, shape, base + start, end - start)


def largest_value(file: IO[bytes], entry: TensorEntry) -> float:
    """Returns the largest magnitude above 65504 in a tensor, infinity for NaN and infinities; 0 where there is none.

    Args:
        file: The whole file, open.
        entry: A tensor of floating-point numbers.
    """
    size, peak = _SIZES[entry.dtype], 0.0
    file.seek(entry.start)
    left = entry.nbytes
    while left:
        part = file.read(min(left, _CHUNK))
        if not part:
            raise HeaderError("it ends in the middle of a tensor")
        left -= len(part)
        for match in _LARGE_TOPS[entry.dtype].finditer(part[size - 1 :: size]):
            value = abs(_value(part[match.start() * size : (match.start() + 1) * size], entry.dtype))
            if not math.isfinite(value):
                return math.inf
            peak = max(peak, value) if value > 65504 else peak
    return peak


def _value(raw: bytes, dtype: str) -> float:
    if dtype == "BF16":
        raw, dtype = b"\0\0" + raw, "F32"
    found: float = struct.unpack({"F64": "<d", "F32": "<f", "F16": "<e"}[dtype], raw)[0]
    return found
