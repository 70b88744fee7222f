"""Whether a model can run on a machine."""

from pathlib import Path

import pytest

from kaito_core.api import ModelPreset, Weights
from kaito_core.errors import ConfigError
from kaito_core.local import machine
from kaito_core.local.machine import Machine, check_machine, this_machine
from kaito_testing.registry import example_preset

WEIGHTS = Weights(repository="example/big", revision="0" * 40, size_gib=10)


def big(**changes: object) -> ModelPreset:
    return example_preset(name="big", weights=WEIGHTS, **changes)


@pytest.mark.parametrize(
    ("has", "download", "warning"),
    [
        (Machine(20, 10, has_gpu=False), True, ""),
        (Machine(4, 10, has_gpu=True), True, ""),  # the runtime checks the memory of the GPU
        (Machine(16, 10, has_gpu=False), True, "needs between 10.0 and 20.0 GiB of memory for its weights, and this "),
        (Machine(8, 0, has_gpu=False), False, "machine has no GPU and 8.0 GiB of memory"),
    ],
)
def test_a_model_that_may_fit(has: Machine, download: bool, warning: str, tmp_path: Path) -> None:
    found = check_machine(big(), has, tmp_path, download=download)
    assert warning in found and bool(found) == bool(warning)


def test_weights_of_32_bits_take_their_own_size(tmp_path: Path) -> None:
    has = Machine(12, 50, has_gpu=False)
    assert check_machine(big(dtype="float32"), has, tmp_path, download=True) == ""


@pytest.mark.parametrize(
    ("has", "words"),
    [
        (Machine(64, 6, has_gpu=True), "big needs 10.0 GiB more disk for its weights, and {folder} has 6.0 GiB free"),
        (Machine(8, 50, has_gpu=False), "big needs at least 10.0 GiB of memory for its weights, and this machine has"),
    ],
)
def test_a_model_that_cannot_fit(has: Machine, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check_machine(big(), has, tmp_path, download=True)
    assert str(caught.value).startswith(words.format(folder=tmp_path))


def test_what_was_downloaded_before_needs_no_more_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_GIB", 1)  # so that a few bytes are as many GiB
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"x" * 7)
    has = Machine(64, 4, has_gpu=True)
    assert check_machine(big(), has, tmp_path, download=True) == ""
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"x" * 5)
    with pytest.raises(ConfigError, match=r"big needs 5\.0 GiB more disk"):
        check_machine(big(), has, tmp_path, download=True)


def test_the_limit_of_a_container_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_CGROUP_LIMIT", limit)
    whole = this_machine(tmp_path).memory_gib
    limit.write_text("max\n")
    assert this_machine(tmp_path).memory_gib == whole > 0
    limit.write_text(f"{1 << 30}\n")
    assert this_machine(tmp_path).memory_gib == 1
    assert this_machine(tmp_path).free_disk_gib > 0
