"""Presets in YAML or JSON files: checked by the class that checks those in Python, with errors by file and line."""

import json
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kaito_core import hookimpl
from kaito_core.api import ModelPreset
from kaito_core.api.messages import shown
from kaito_core.api.preset.model import PRESET_API_VERSION, PRESET_KIND
from kaito_core.errors import PluginLoadError
from kaito_core.plugins.preset_errors import preset_faults

__all__ = ["preset_plugin", "read_presets"]


class _Loader(yaml.SafeLoader):
    """YAML without its traps: duplicate keys are errors, and what looks like a date is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012  (as the class above has it)
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in node.value if keys.count(key[0].value) > 1), None):
            raise yaml.MarkedYAMLError(problem=f"duplicate key '{twice[0].value}'", problem_mark=twice[0].start_mark)
        return super().construct_mapping(node, deep)


class _PresetPlugin:
    """A plugin that brings presets that were read from a file."""

    def __init__(self, presets: Sequence[ModelPreset]) -> None:
        self._presets = presets

    @hookimpl
    def kaito_model_presets(self) -> Sequence[ModelPreset]:
        return self._presets


def preset_plugin(path: Path) -> object:
    """Returns the plugin that a file of presets stands for.

    Raises:
        PluginLoadError: As `read_presets` does.
    """
    return _PresetPlugin(read_presets(path))


def read_presets(path: Path) -> list[ModelPreset]:
    """Returns the presets of a file with one or more documents.

    Raises:
        PluginLoadError: It cannot be read, or a document is not a valid preset; lists each fault with its line.
    """
    loader = None
    presets, faults = [], []
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        while loader.check_node():
            node = loader.get_node()
            assert node is not None  # there is one, check_node says
            document = loader.construct_document(node)
            if document is None:  # the part before a first "---"
                continue
            faults += [f"{path}:{line}: {text}" for line, text in _faults(node, document)]
            if not faults:
                presets.append(_preset(document))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise PluginLoadError(f"{where}: invalid YAML: {getattr(error, 'problem', error)}") from error
    except UnicodeDecodeError as error:
        raise PluginLoadError(f"{path}: not a text file") from error
    except OSError as error:
        raise PluginLoadError(f"{path}: {error.strerror or error}") from error
    finally:
        if loader is not None:
            loader.dispose()
    if faults:
        raise PluginLoadError("; ".join(faults))
    if not presets:
        raise PluginLoadError(f"{path}: holds no {PRESET_KIND}")
    return presets


def _preset(document: Mapping[str, Any]) -> ModelPreset:
    record = {key: value for key, value in document.items() if key not in ("apiVersion", "kind")}
    # Strict, so that `gpus: yes` is not 1; as JSON, since a strict model takes mappings for its parts from JSON only.
    return ModelPreset.model_validate_json(json.dumps(record), strict=True)


def _faults(node: yaml.Node, document: object) -> Iterator[tuple[int, str]]:
    """Yields the line and the words of each fault of a document."""
    if not isinstance(document, Mapping):
        yield node.start_mark.line + 1, f"must be a mapping, got {shown(document)}"
        return
    head = (document.get("apiVersion"), document.get("kind"))
    if head != (PRESET_API_VERSION, PRESET_KIND):
        yield (
            _line(node, ("apiVersion",)),
            f"apiVersion and kind must be {PRESET_API_VERSION} and {PRESET_KIND}, got {shown(head[0])} and "
            f"{shown(head[1])}",
        )
        return
    try:
        _preset(document)
    except ValidationError as error:
        for location, words in preset_faults(error):
            yield _line(node, location), words
    except (TypeError, ValueError) as error:  # keys or values that JSON does not have, such as !!binary
        yield node.start_mark.line + 1, f"holds a value that JSON does not have: {error}"


def _line(node: yaml.Node, location: Sequence[int | str]) -> int:
    """Returns the line of a place, or of the innermost part around it that exists."""
    line = node.start_mark.line + 1
    for part in location:
        if not isinstance(node, yaml.MappingNode):
            break
        pair = next(((key, value) for key, value in node.value if key.value == part), None)
        if pair is None:
            break
        line, node = pair[0].start_mark.line + 1, pair[1]
    return line
