"""Presets as documents: the same record, and every fault with its file, line, field and value."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from kaito_core.api import ModelPreset
from kaito_core.errors import PluginLoadError
from kaito_core.plugins.preset_file import read_presets

GOOD = """\
# yaml-language-server: $schema=model-preset.json
apiVersion: kaito.sh/v1
kind: ModelPreset
name: tiny-1b
family: tiny
architecture: LlamaForCausalLM
weights:
  repository: example/tiny-1b
  revision: 2024-01-01
  size_gib: 2
gpus: 1
gpu_memory_gib: 5.5
memory_gib: 16
disk_gib: 40
context_length: 2048
kv_bytes_per_token: 8192
license: Apache-2.0
"""


def read(tmp_path: Path, text: str) -> list[ModelPreset]:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return read_presets(path)


def test_a_good_document_is_the_record(tmp_path: Path) -> None:
    (preset,) = read(tmp_path, GOOD)
    fields = yaml.safe_load(GOOD.replace("2024-01-01", "'2024-01-01'"))
    del fields["apiVersion"], fields["kind"]
    assert preset == ModelPreset(**fields)
    assert preset.weights.revision == "2024-01-01", "a revision that looks like a date is text"


WRONG: dict[str, tuple[str, str, str]] = {
    # what: (a line of the good document, what stands there instead, the error after the file's name)
    "unknown key": ("gpus: 1", "gpu: 1\ngpus: 1", ":11: gpu is not a field of a preset; did you mean gpus?"),
    "unknown key without a likeness": ("gpus: 1", "gpus: 1\nzzz: 1", ":12: zzz is not a field of a preset; known: na"),
    "unknown key inside": (
        "  size_gib: 2",
        "  size_gib: 2\n  gate: true",
        ":11: weights.gate is not a field of a preset; did you mean gated?",
    ),
    "a key twice": ("gpus: 1", "gpus: 1\ngpus: 2", ":11: invalid YAML: duplicate key 'gpus'"),
    "negative memory": ("memory_gib: 16", "memory_gib: -1", ":13: memory_gib must be greater than 0, got -1"),
    "negative size": ("  size_gib: 2", "  size_gib: -2", ":10: weights.size_gib must be greater than 0, got -2"),
    "empty image": ("gpus: 1", "image: ''\ngpus: 1", ":11: image must have at least 1 character, got ''"),
    "missing": ("license: Apache-2.0\n", "", ":2: license is required"),
    "text for a number": ("gpus: 1", "gpus: one", ":11: gpus must be a whole number, got 'one'"),
    "yes for a number": ("gpus: 1", "gpus: yes", ":11: gpus must be a whole number, got True"),
    "not a number": ("memory_gib: 16", "memory_gib: .nan", ":13: memory_gib must be a finite number"),
    "a bad name": ("name: tiny-1b", "name: Tiny", ":4: name must be lower-case letters"),
    "fields that disagree": ("gpus: 1", "gpus: 0", ":2: gpus (0) and gpu_memory_gib (5.5) must both be 0 or neither"),
    "another kind": (
        "kind: ModelPreset",
        "kind: Preset",
        ":2: apiVersion and kind must be kaito.sh/v1 and ModelPreset",
    ),
    "another version": (
        "apiVersion: kaito.sh/v1",
        "apiVersion: kaito.sh/v9",
        ":2: apiVersion and kind must be kaito.s",
    ),
    "no YAML": ("gpus: 1", "gpus: [1", ":12: invalid YAML: expected ',' or ']'"),
    "no mapping": (GOOD, "- 1", ":1: must be a mapping, got a list"),
    "nothing": (GOOD, "# nothing\n", ": holds no ModelPreset"),
    "a Python object": ("gpus: 1", "gpus: !!python/name:os.system", ":11: invalid YAML: could not"),
    "bytes": ("license: Apache-2.0", "license: !!binary aGk=", ":2: holds a value that JSON does not have"),
    "a number for a key": ("gpus: 1", "1: 1\ngpus: 1", ":11: [1] is not a field of a preset"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_fault_is_told_with_file_line_field_and_value(tmp_path: Path, what: str) -> None:
    line, instead, error = WRONG[what]
    assert line in GOOD
    with pytest.raises(PluginLoadError) as caught:
        read(tmp_path, GOOD.replace(line, instead, 1))
    message = str(caught.value)
    assert message.removeprefix(str(tmp_path / "mine.yaml")).startswith(error), message


def test_all_faults_of_all_documents_are_told_at_once(tmp_path: Path) -> None:
    second = GOOD.replace("gpus: 1", "gpus: x").replace("disk_gib: 40", "disk_gib: 0")
    with pytest.raises(PluginLoadError) as caught:
        read(tmp_path, f"{GOOD}---\n{second}")
    lines = [
        part.removeprefix(f"{tmp_path / 'mine.yaml'}:").partition(":")[0] for part in str(caught.value).split("; ")
    ]
    assert lines == ["29", "32"]


@pytest.mark.parametrize(
    ("content", "error"), [(b"\xff\xfe\x00", "not a text file"), (None, "No such file or directory")]
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: Any, error: str) -> None:
    path = tmp_path / "mine.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PluginLoadError) as caught:
        read_presets(path)
    assert str(caught.value) == f"{path}: {error}"
