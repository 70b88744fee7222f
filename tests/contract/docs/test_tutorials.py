"""The tutorials work: their files are written, their commands run in a fresh environment, their output is compared.

A block after `<!-- file: PATH -->` is that file, an `sh` block is run, and each line of a `text` block must be in the
output of the commands before it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.distributions import ROOT
from helpers.fresh_venv import FreshVenv

TUTORIALS = sorted((ROOT / "docs" / "tutorial").glob("*.md"))
BLOCK = re.compile(
    r"(?:<!-- file: (?P<file>\S+) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Block:
    """One code block; `file` is the file that it stands for, or ""."""

    file: str
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    for match in BLOCK.finditer(page.read_text()):
        yield Block(match["file"] or "", match["language"], match["text"])


def test_there_are_tutorials() -> None:
    assert {page.name for page in TUTORIALS} >= {"first-model-plugin.md", "first-cloud.md"}


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.name)
def test_every_block_is_a_file_commands_or_output(page: Path) -> None:
    """No block is shown to readers and never tried."""
    found = list(blocks(page))
    assert len(found) == page.read_text().count("\n```") / 2
    ran = False
    for block in found:
        assert block.file or block.language in ("sh", "text"), block.text
        assert ran or block.language != "text", f"no command comes before the output: {block.text}"
        ran = ran or block.language == "sh"
        if block.language == "python":
            compile(block.text, block.file, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.name)
def test_tutorial_works(page: Path, venv: FreshVenv, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    output = ""
    for block in blocks(page):
        if block.file:
            target = folder / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text)
        elif block.language == "sh":
            output = venv.run("bash", "-e", "-o", "pipefail", "-c", block.text, cwd=folder)
        else:
            for line in block.text.splitlines():
                assert line.strip() in output, f"{page.name}: '{line}' is not in\n{output}"
