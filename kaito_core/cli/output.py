"""Printing records: tables for people, JSON and YAML for programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from kaito_core.api.yaml_text import dump_yaml

__all__ = ["Format", "FormatOption", "print_records"]


class Format(StrEnum):
    """How to print."""

    table = "table"
    json = "json"
    yaml = "yaml"


FormatOption = Annotated[Format, typer.Option("--output", "-o", help="How to print.")]


def print_records(records: Sequence[Mapping[str, Any]], columns: Mapping[str, str], form: Format) -> None:
    """Prints records.

    Args:
        records: What to print; JSON and YAML print them whole.
        columns: Heading of each column of the table, by the key of the record.
        form: Table, JSON or YAML.
    """
    if form is Format.json:
        print(json.dumps(list(records), indent=2))
    elif form is Format.yaml:
        sys.stdout.write(dump_yaml([list(records)]))
    else:
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(*columns.values(), box=box.SIMPLE_HEAD, pad_edge=False)
        for record in records:
            table.add_row(*(_cell(record.get(key)) for key in columns))
        # A pipe has no width: wrapping there would break lines that programs read.
        Console(width=None if sys.stdout.isatty() else 240, highlight=False, markup=False).print(table)


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
