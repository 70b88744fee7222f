"""Whose chat template a conversation is written with: the server's, or that of the one adapter that brings one."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from site_in_memory import CHAT, Site

from kaito_runtime.errors import AdapterLoadError
from kaito_runtime.formats.chat_template import read_chat_template

JINJA = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("files", "template"),
    [
        ({}, ""),
        ({"chat_template.jinja": JINJA}, JINJA),
        ({"tokenizer_config.json": json.dumps({"chat_template": "t"})}, "t"),
        ({"chat_template.jinja": JINJA, "tokenizer_config.json": json.dumps({"chat_template": "t"})}, JINJA),
        ({"tokenizer_config.json": json.dumps({"chat_template": [{"name": "default", "template": "d"}]})}, "d"),
        ({"tokenizer_config.json": json.dumps({"chat_template": None})}, ""),
        ({"tokenizer_config.json": "[]"}, ""),
    ],
)
def test_template_is_where_trainers_save_it(tmp_path: Path, files: dict[str, str], template: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert read_chat_template(tmp_path, name="a") == template


def test_template_that_cannot_be_read_fails_its_adapter(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(AdapterLoadError, match="its chat template cannot be read"):
        read_chat_template(tmp_path, name="a")


@pytest.mark.parametrize("own", ["", "own"])
def test_template_of_the_one_adapter_counts_and_a_difference_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, own: str
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "chat_template.jinja").write_text(JINJA)
    site = Site(tmp_path)
    site.codec.chat_template = own

    def prompt(**more: Any) -> str:
        with caplog.at_level(logging.WARNING):
            assert site.client.post("/v1/chat/completions", json=CHAT | more).status_code == 200
        return bytes(site.engine.jobs[-1].prompt).decode()

    plain = "own" if own else "user:hi\n"
    assert prompt(model="a") == "<user>hi"
    assert prompt(model="base", adapters=[{"name": "a", "strength": 2}]) == "<user>hi"
    assert prompt(model="base") == prompt(model="a", adapters=[]) == plain
    assert prompt(model="base", adapters=[{"name": "a", "strength": 0}]) == plain
    warned = [record for record in caplog.records if "adapter's chat template" in record.message]
    assert len(warned) == (1 if own else 0)
