"""docs/reference/validation.md is generated from the table of cases, and leaves no rule out."""

import importlib.util
from pathlib import Path
from types import ModuleType

from kaito_testing.cases.workspaces import CASES

FOLDER = Path(__file__).parents[3] / "docs" / "reference"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("validation_generator", FOLDER / "generate_validation.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_table_gives() -> None:
    assert (FOLDER / "validation.md").read_text(encoding="utf-8") == _generator().page(), (
        "regenerate it: python docs/reference/generate_validation.py"
    )


def test_each_rule_and_each_exception_is_on_the_page() -> None:
    lines = (FOLDER / "validation.md").read_text(encoding="utf-8").splitlines()
    for case in CASES:
        if case.refused:
            assert any(line.startswith(f"| {case.rule} |") for line in lines), case.rule
        if case.only_python:
            assert any(line.startswith(f"| {case.rule} |") and case.only_python in line for line in lines), case.id
