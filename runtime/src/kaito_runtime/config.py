"""The configuration of one server: read from the operator's file, or made from command-line flags."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kaito_core.api.adapter import ADAPTER_NAME
from kaito_core.api.serving import ServedAdapter, ServedModel, ServingConfig
from kaito_core.api.strength import parse_strength
from kaito_runtime.errors import ServeError

__all__ = [
    "ConfigError",
    "config_from_flags",
    "config_schema_text",
    "parse_adapter_flag",
    "parse_config",
    "read_config",
]


class ConfigError(ServeError):
    """The configuration cannot be used. At the start that ends the process; later the last good one stays."""


def parse_config(content: bytes, where: str) -> ServingConfig:
    """Returns the configuration in a file's content.

    Args:
        where: Name of the file, for messages.

    Raises:
        ConfigError: It is no JSON or no ServingConfig; every fault is named with its field.
    """
    try:
        return ServingConfig.model_validate_json(content)
    except ValidationError as error:
        faults = "; ".join(_fault(detail) for detail in error.errors())
        raise ConfigError(f"{where}: {faults}") from error


def read_config(path: Path) -> ServingConfig:
    """Returns the configuration in a file.

    Raises:
        ConfigError: As `parse_config`, or the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    return parse_config(content, str(path))


def parse_adapter_flag(text: str) -> ServedAdapter:
    """Returns the adapter that `NAME=DIR` or `NAME=DIR@STRENGTH` stands for.

    Raises:
        ConfigError: It is neither, or the folder does not exist.
    """
    name, equals, rest = text.partition("=")
    if not equals or not rest or ADAPTER_NAME.fullmatch(name) is None:
        raise ConfigError(f"--adapter must be NAME=DIR or NAME=DIR@STRENGTH, NAME in lower case, got '{text}'")
    folder, at, strength = rest.rpartition("@")
    if not at or Path(rest).is_dir():  # a folder's own name may have an "@" in it
        folder, strength = rest, "1"
    try:
        parsed = parse_strength(strength)
    except ValueError as error:
        raise ConfigError(f"--adapter {name}: strength {error}") from error
    if not Path(folder).is_dir():
        raise ConfigError(f"--adapter {name}: there is no folder '{folder}'")
    return ServedAdapter(name=name, strength=parsed, path=str(Path(folder).absolute()))


def config_from_flags(model: Path, *, name: str | None, adapters: Sequence[str], dtype: str) -> ServingConfig:
    """Returns the configuration that command-line flags stand for.

    Args:
        name: Model id; None makes one from the path.

    Raises:
        ConfigError: Names the flag.
    """
    chosen = name or re.sub(r"\.(q\d\w*|f16|bf16|f32)?\.?gguf$", "", model.name.lower(), flags=re.IGNORECASE)
    try:
        return ServingConfig(
            model=ServedModel(name=chosen, dtype=dtype),  # type: ignore[arg-type]
            adapters=tuple(parse_adapter_flag(adapter) for adapter in adapters),
        )
    except ValidationError as error:
        raise ConfigError("; ".join(_fault(detail) for detail in error.errors())) from error


def config_schema_text() -> str:
    """Returns the JSON schema of the file. Rules between fields are not in it: only `parse_config` checks those."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **ServingConfig.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def _fault(detail: ErrorDetails) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    message = detail["msg"].removeprefix("Value error, ")
    return f"{path} {message}" if path else message
