"""Options of the form NAME=VALUE that can be repeated."""

from collections.abc import Sequence

from kaito_core.errors import ConfigError

__all__ = ["parse_pairs"]


def parse_pairs(option: str, form: str, values: Sequence[str] | None) -> dict[str, str]:
    """Returns the values by name. The last "=" separates, since references of images may contain one.

    Args:
        option: The option, for messages.
        form: What it takes, such as "NAME=STRENGTH".
        values: What the user gave.

    Raises:
        ConfigError: A value does not have the form.
    """
    pairs = {}
    for value in values or ():
        name, _, right = value.rpartition("=")
        if not name or not right:
            raise ConfigError(f"{option} must be {form}, got '{value}'")
        pairs[name] = right
    return pairs
