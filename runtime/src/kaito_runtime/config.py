"""The configuration of one server: read from the operator's file, or made from command-line flags."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from kaito_core.api.adapter import ADAPTER_NAME
from kaito_core.api.messages import field_path
from kaito_core.api.serving import ServedAdapter, ServedModel, ServingConfig
from kaito_core.api.strength import DEFAULT_STRENGTH
from kaito_runtime.errors import ServeError, validation_message

__all__ = [
    "ConfigError",
    "ConfigFile",
    "config_from_flags",
    "config_schema_text",
    "parse_adapter_flag",
    "parse_config",
]

_GGUF_ENDING = re.compile(r"\.(q\d\w*|f16|bf16|f32)?\.?gguf$")


class ConfigError(ServeError):
    """The configuration is invalid. At the start that ends the process; later the last valid one stays."""


class ConfigFile:
    """A configuration file, parsed when its content changes and not otherwise.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content: bytes | None = None

    def has_changed(self) -> bool:
        """Returns whether `read` would find another content. A file that cannot be read has not changed."""
        try:
            return self.path.read_bytes() != self._content
        except OSError:
            return False

    def read(self) -> ServingConfig | None:
        """Returns the configuration; None where the content is what the last call read, valid or not.

        Raises:
            ConfigError: As `parse_config`, or the file cannot be read.
        """
        try:
            content = self.path.read_bytes()
        except OSError as error:
            self._content = None  # the same content counts as new when it is back
            raise ConfigError(f"{self.path}: {error.strerror or error}") from error
        if content == self._content:
            return None
        self._content = content
        return parse_config(content, str(self.path))


def parse_config(content: bytes, where: str) -> ServingConfig:
    """Returns the configuration in a file's content.

    Args:
        where: Name of the file, for messages.

    Raises:
        ConfigError: It is not JSON, or not a ServingConfig; names every invalid field.
    """
    try:
        return ServingConfig.model_validate_json(content)
    except ValidationError as error:
        raise ConfigError(f"{where}: {'; '.join(_faults(error))}") from error


def parse_adapter_flag(text: str) -> ServedAdapter:
    """Returns the adapter that `NAME=DIR` or `NAME=DIR@STRENGTH` names.

    Raises:
        ConfigError: It is neither of the two, the strength is invalid, or the folder does not exist.
    """
    name, equals, rest = text.partition("=")
    if not equals or not rest or ADAPTER_NAME.fullmatch(name) is None:
        raise ConfigError(f"--adapter must be NAME=DIR or NAME=DIR@STRENGTH, NAME in lower case, got '{text}'")
    folder, at, strength = rest.rpartition("@")
    if not at or Path(rest).is_dir():  # a folder's own name may have an "@" in it
        folder, strength = rest, f"{DEFAULT_STRENGTH:g}"
    fields = {"name": name, "strength": strength, "path": str(Path(folder).absolute())}
    try:
        adapter = ServedAdapter.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(f"--adapter {name}: {'; '.join(_faults(error))}") from error
    if not Path(folder).is_dir():
        raise ConfigError(f"--adapter {name}: folder '{folder}' does not exist")
    return adapter


def config_from_flags(model: Path, *, name: str | None, adapters: Sequence[str], dtype: str) -> ServingConfig:
    """Returns the configuration that command-line flags give.

    Args:
        model: Folder or GGUF file.
        name: Model id; None derives one from the path.
        adapters: Texts of --adapter.

    Raises:
        ConfigError: A flag is invalid; names it.
    """
    try:
        return ServingConfig(
            model=ServedModel(name=name or _GGUF_ENDING.sub("", model.name.lower()), dtype=dtype),  # type: ignore[arg-type]
            adapters=tuple(parse_adapter_flag(adapter) for adapter in adapters),
        )
    except ValidationError as error:
        raise ConfigError("; ".join(_faults(error))) from error


def config_schema_text() -> str:
    """Returns the JSON schema of the file. It has no rules between fields: only `parse_config` checks those."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **ServingConfig.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def _faults(error: ValidationError) -> list[str]:
    found = []
    for detail in error.errors():
        field = field_path(detail["loc"])
        found.append(f"{field} {validation_message(detail)}" if field else validation_message(detail))
    return found
