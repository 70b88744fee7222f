"""What `-o` prints."""

import json

import pytest
import yaml

from helpers.command_line import kaito
from kaito_core.cli.output import ListFormat, print_data, print_list

RECORDS = [
    {"name": "a-model-with-a-name-of-more-than-forty-characters", "gpus": 2, "size": 1.5, "plugin": None, "on": True},
    {"name": "b", "gpus": 10, "size": 20.0, "plugin": ["x", "y"], "on": False},
]
COLUMNS = {"name": "NAME", "gpus": "GPUS", "plugin": "PLUGIN"}


def printed(capsys: pytest.CaptureFixture[str], form: ListFormat) -> str:
    print_list(RECORDS, COLUMNS, {"size": "SIZE", "on": "ON"}, form)
    return capsys.readouterr().out


def test_a_table_is_a_line_for_each_record_and_cuts_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    heading, first, second = printed(capsys, ListFormat.table).splitlines()
    assert heading.split() == ["NAME", "GPUS", "PLUGIN"]
    assert first.split() == ["a-model-with-a-name-of-more-than-forty-characters", "2"]
    assert second.split() == ["b", "10", "x,", "y"]
    assert heading.index("GPUS") == first.index("2") == second.index("10")
    assert not any(line.endswith(" ") for line in (heading, first, second))


def test_wide_adds_columns(capsys: pytest.CaptureFixture[str]) -> None:
    heading, first, second = printed(capsys, ListFormat.wide).splitlines()
    assert heading.split() == ["NAME", "GPUS", "PLUGIN", "SIZE", "ON"]
    assert first.split()[-2:] == ["1.5", "yes"] and second.split()[-2:] == ["20", "no"]


def test_names_and_whole_records(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, ListFormat.name).splitlines() == [record["name"] for record in RECORDS]
    assert json.loads(printed(capsys, ListFormat.json)) == RECORDS
    assert yaml.safe_load(printed(capsys, ListFormat.yaml)) == RECORDS


def test_one_record_is_not_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    print_data(RECORDS[0], "yaml")
    assert yaml.safe_load(capsys.readouterr().out) == RECORDS[0]
    print_data(RECORDS[0], "json")
    assert json.loads(capsys.readouterr().out) == RECORDS[0]


def test_a_terminal_of_eighty_columns_holds_the_list_of_presets() -> None:
    lines = kaito("presets", "list").stdout.splitlines()
    assert lines[0].split()[0] == "NAME" and "LICENSE" not in lines[0]
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[1:]] == kaito("presets", "list", "-o", "name").stdout.split()
    wide = kaito("presets", "list", "-o", "wide").stdout.splitlines()
    assert wide[0].split()[-2:] == ["LICENSE", "WORKLOAD"]
    assert any("Apache-2.0" in line for line in wide)
