"""Kubernetes quantities ("50Gi", "500m") as numbers, and back.

Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import math
import re
from decimal import Decimal

__all__ = [
    "MAX_DEVICES",
    "MEMORY_SIZE",
    "device_count",
    "format_gib",
    "parse_bytes",
    "parse_gib",
    "parse_quantity",
]

#: Pattern of sizes that `parse_bytes` can read.
MEMORY_SIZE = r"^[0-9]+(\.[0-9]+)?([kMGTP]|[KMGTP]i)?$"
#: More devices than this on one node are taken for a mistake of its device plugin.
MAX_DEVICES = 1024

_FACTORS = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(1000),
    "M": Decimal(1000) ** 2,
    "G": Decimal(1000) ** 3,
    "T": Decimal(1000) ** 4,
    "P": Decimal(1000) ** 5,
    "E": Decimal(1000) ** 6,
    "Ki": Decimal(1024),
    "Mi": Decimal(1024) ** 2,
    "Gi": Decimal(1024) ** 3,
    "Ti": Decimal(1024) ** 4,
    "Pi": Decimal(1024) ** 5,
    "Ei": Decimal(1024) ** 6,
}
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
#: A quantity has an exponent or a suffix, not both. Two digits of exponent reach beyond every machine.
_QUANTITY = re.compile(rf"({_NUMBER}(?:[eE][+-]?\d{{1,2}})?)|({_NUMBER})([numkMGTPE]|[KMGTPE]i)", re.ASCII)


def parse_quantity(text: str | int | float) -> Decimal:
    """Returns the number that a quantity stands for, in its base unit (bytes, cores, devices).

    Raises:
        ValueError: `text` is not a quantity.
    """
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"must be a Kubernetes quantity such as 1, 500m or 50Gi, got '{text}'")
    return Decimal(match[1] or match[2]) * _FACTORS[match[3] or ""]


def parse_gib(text: str | int | float) -> float:
    """Returns a quantity of bytes in GiB.

    Raises:
        ValueError: `text` is not a quantity.
    """
    return float(parse_quantity(text) / _FACTORS["Gi"])


def parse_bytes(text: str) -> int:
    """Returns the bytes of a size such as "2Gi" or "500Mi"; a plain number is GiB.

    Raises:
        ValueError: `text` is neither, or below one byte.
    """
    plain = text.strip()
    try:
        number = parse_quantity(f"{plain}Gi" if plain.replace(".", "", 1).isdigit() else plain)
    except ValueError:
        number = Decimal(0)
    if number < 1:
        raise ValueError(f"must be a size such as 2Gi or 500Mi, or a number of GiB, got '{text}'")
    return int(number)


def device_count(value: object) -> int | None:
    """Returns a number of devices, such as a node's GPUs; None unless it is a whole number up to `MAX_DEVICES`."""
    try:
        number = parse_quantity(str(value))
    except ValueError:
        return None
    return int(number) if 0 <= number <= MAX_DEVICES and number == int(number) else None


def format_gib(gib: float) -> str:
    """Returns GiB as a quantity: in Gi where that is a whole number, else in Mi, rounded up."""
    return f"{int(gib)}Gi" if gib == int(gib) else f"{math.ceil(gib * 1024)}Mi"
