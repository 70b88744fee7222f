"""Generated files are up to date, reference pages and the schema of presets, and the examples in them work."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

import kaito_core
from kaito_core import hookimpl
from kaito_core.api import ModelPreset, PodChange, Weights
from kaito_core.api.preset.schema import preset_schema
from kaito_core.errors import FieldError
from kaito_core.plugins.preset_file import read_presets
from kaito_core.settings import Settings
from kaito_testing.registry import example_preset

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"
SCHEMA = Path(kaito_core.__file__).parent / "schemas" / "model-preset.json"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_generator", REFERENCE / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE = _generator()


@pytest.mark.parametrize("name", sorted(GENERATE.pages()))
def test_each_page_is_what_the_code_gives(name: str) -> None:
    assert (REFERENCE / name).read_text(encoding="utf-8") == GENERATE.pages()[name], (
        "regenerate it: python docs/reference/generate.py"
    )


def test_the_schema_is_what_the_code_gives() -> None:
    assert json.loads(SCHEMA.read_text()) == preset_schema(), (
        "regenerate it: python -m kaito_core.api.preset.schema > kaito_core/schemas/model-preset.json"
    )


def test_the_schema_describes_every_field() -> None:
    jsonschema.Draft202012Validator.check_schema(preset_schema())
    for part in (preset_schema(), preset_schema()["properties"]["weights"]):
        assert [name for name, field in part["properties"].items() if not field.get("description")] == []
    assert set(preset_schema()["properties"]) == {*ModelPreset.model_fields, "apiVersion", "kind"}


def test_the_example_of_a_preset_passes_the_schema_and_the_reader(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", (REFERENCE / "presets-yaml.md").read_text(), re.DOTALL)
    assert block.startswith("# yaml-language-server: $schema=")
    jsonschema.validate(yaml.safe_load(block), preset_schema())
    (tmp_path / "mine.yaml").write_text(block)
    (preset,) = read_presets(tmp_path / "mine.yaml")
    assert preset.name == "tiny-1b"


class MyCloud:
    """What the examples of hooks return."""

    def __init__(self, name: str = "my_cloud") -> None:
        self.name = name


#: For each hook, what its example is called with, and what it must answer.
SHOP = SimpleNamespace(namespace="shop", name="demo")
CALLS: dict[str, tuple[dict[str, Any], Any]] = {
    "kaito_model_presets": ({}, lambda answer: [type(preset) for preset in answer] == [ModelPreset]),
    "kaito_node_providers": ({"settings": Settings()}, lambda answer: [p.name for p in answer] == ["west"]),
    "kaito_adapter_sources": ({}, lambda answer: len(answer) == 1),
    "kaito_validate_workspace": (
        {"workspace": SHOP, "preset": example_preset(license="llama2")},
        lambda answer: [error.field for error in answer] == ["inference.preset.name"],
    ),
    "kaito_pod": (
        {"workspace": SHOP, "preset": example_preset(), "pod": {}},
        lambda answer: answer.labels == {"team": "shop"},
    ),
    "kaito_select_node_provider": (
        {"workspace": SHOP, "candidates": [MyCloud("other"), MyCloud()]},
        lambda answer: answer.name == "my_cloud",
    ),
    "kaito_reconciled": ({"workspace": SHOP, "outcome": "Ready"}, lambda answer: answer is None),
}


def test_every_hook_has_a_call_here() -> None:
    assert set(CALLS) == set(GENERATE.hooks())


@pytest.mark.parametrize("name", CALLS)
def test_the_example_of_each_hook_runs(name: str) -> None:
    records = (ModelPreset, PodChange, Weights, FieldError)
    names = {"hookimpl": hookimpl, **{record.__name__: record for record in records}}
    scope: dict[str, Any] = {**names, "MyCloud": MyCloud, "MySource": MyCloud}
    code = GENERATE.example(GENERATE.hooks()[name])
    assert code.startswith("@hookimpl")
    exec(code, scope)
    arguments, right = CALLS[name]
    assert right(scope[name](**arguments))


@pytest.mark.parametrize("name", CALLS)
def test_each_hook_says_when_it_is_called_and_what_an_error_does(name: str) -> None:
    text = GENERATE.summary(GENERATE.hooks()[name])
    assert re.search(r"\bcalled\b", text, re.IGNORECASE)
    assert re.search(r"\b(errors?|raises|exception)\b", text, re.IGNORECASE)
