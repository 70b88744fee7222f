"""Printing: tables and text for people, JSON and YAML for programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from kaito_core.api.yaml_text import dump_yaml

__all__ = [
    "ListFormat",
    "ListOption",
    "RecordFormat",
    "RecordOption",
    "ReportFormat",
    "ReportOption",
    "print_data",
    "print_list",
    "table_lines",
]

_GAP = "   "  # between columns


class ListFormat(StrEnum):
    """How to print a list of records."""

    table = "table"
    wide = "wide"
    name = "name"
    json = "json"
    yaml = "yaml"


class RecordFormat(StrEnum):
    """How to print one record."""

    yaml = "yaml"
    json = "json"


class ReportFormat(StrEnum):
    """How to print what a check has found."""

    text = "text"
    json = "json"
    yaml = "yaml"


ListOption = Annotated[
    ListFormat, typer.Option("--output", "-o", help="How to print: wide has more columns, name prints names only.")
]
RecordOption = Annotated[RecordFormat, typer.Option("--output", "-o", help="How to print.")]
ReportOption = Annotated[ReportFormat, typer.Option("--output", "-o", help="How to print.")]


def print_data(data: object, form: str) -> None:
    """Prints a record, or a list of records, as "json" or "yaml"."""
    if form == "json":
        print(json.dumps(data, indent=2))
    else:
        sys.stdout.write(dump_yaml([data]))


def print_list(
    records: Sequence[Mapping[str, Any]], columns: Mapping[str, str], wide: Mapping[str, str], form: ListFormat
) -> None:
    """Prints a list of records.

    Args:
        records: What to print, each with a "name"; JSON and YAML have all keys.
        columns: Heading of each column, by the key of the record.
        wide: Columns that only `-o wide` adds.
        form: How to print.
    """
    match form:
        case ListFormat.json | ListFormat.yaml:
            print_data(list(records), form)
        case ListFormat.name:
            for record in records:
                print(record["name"])
        case ListFormat.table | ListFormat.wide:
            shown = {**columns, **(wide if form is ListFormat.wide else {})}
            rows = [list(shown.values()), *([_cell(record.get(key)) for key in shown] for record in records)]
            for line in table_lines(rows):
                print(line)


def table_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns rows as kubectl prints them: nothing is cut, and a line too long for the terminal is left to it."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_GAP.join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value).replace("\n", " ")
