"""The suite for presets: a sound plugin passes every rule, and each rule finds the plugin that breaks it."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rules import rules, verdict

from kaito_core import hookimpl
from kaito_core.api import ModelPreset, Weights
from kaito_testing.conformance import ModelPresetConformance
from kaito_testing.registry import example_preset

SOURCES = dict.fromkeys(
    (
        *("gpus", "gpu_memory_gib", "memory_gib", "disk_gib", "context_length", "kv_bytes_per_token"),
        *("startup_seconds", "weights.revision", "weights.size_gib"),
    ),
    "the model's own card",
)
PINNED = Weights(repository="example/example-7b", revision="0f" * 20, size_gib=13.5)
SERIAL = itertools.count()


def sound(**changes: Any) -> ModelPreset:
    return example_preset(**{"sources": SOURCES, "weights": PINNED, **changes})


def unchecked(**changes: Any) -> ModelPreset:
    """A preset whose author went round the record's own checks."""
    return ModelPreset.model_construct(**{**dict(sound()), **changes})


def suite_for(answers: Sequence[Any], code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> type[Any]:
    """Returns the suite of a plugin module, which answers with the next of `answers` each time, the last for ever."""
    name = f"conformance_plugin_{next(SERIAL)}"
    (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    module = ModuleType(name)
    left = list(answers)

    @hookimpl
    def kaito_model_presets() -> Any:
        return left.pop(0) if len(left) > 1 else left[0]

    module.kaito_model_presets = kaito_model_presets  # type: ignore[attr-defined]
    return type("Suite", (ModelPresetConformance,), {"plugin": module})


#: By rule: what the hook answers, what its module does when it is imported, and a part of the verdict.
BROKEN: dict[str, tuple[Sequence[Any], str, str]] = {
    "test_plugin_registers": ([[sound(), sound()]], "", "duplicate preset 'example-7b'"),
    "test_records_are_valid": ([[unchecked(memory_gib=-1)]], "", "memory_gib"),
    "test_answers_are_the_same_each_time": ([[sound()], [sound(name="other")]], "", "the same presets each time"),
    "test_import_is_light": ([[sound()]], "import kubernetes", "imports kubernetes"),
    "test_memory_holds_the_weights": (
        [[sound(gpu_memory_gib=13.51, kv_bytes_per_token=524288)]],
        "",
        "gpu_memory_gib is 13.51, the weights and 2048 tokens need 14.50 GiB",
    ),
    "test_disk_holds_the_weights": ([[sound(disk_gib=10)]], "", "disk_gib is 10, the weights have 13.5 GiB"),
    "test_cache_has_keys_and_values_of_16_bits": ([[sound(kv_bytes_per_token=8191)]], "", "8191"),
    "test_sources_are_named": ([[sound(sources=SOURCES | {"disk_gib": " "})]], "", "must name disk_gib"),
    "test_weights_are_pinned": (
        [[sound(weights=PINNED.model_copy(update={"revision": "main"}))]],
        "",
        "must be a commit of 40 digits, got 'main'",
    ),
    "test_images_are_pinned": ([[sound(image="registry.example:5000/runtime:latest")]], "", "runtime:latest"),
    "test_manifests_render": (
        [[sound(gpus=100, gpu_memory_gib=70_000)]],
        "",
        "preset 'example-7b' needs 70000 GiB of GPU memory",
    ),
}


def test_every_rule_has_a_plugin_that_breaks_it() -> None:
    assert set(BROKEN) == rules(ModelPresetConformance)


@pytest.mark.parametrize("rule", sorted(BROKEN))
def test_a_sound_plugin_passes(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_cpu = sound(name="cpu", gpus=0, gpu_memory_gib=0, weights=PINNED.model_copy(update={"gated": True}))
    assert verdict(suite_for([[sound(), on_cpu]], "", tmp_path, monkeypatch), rule) == ""


@pytest.mark.parametrize("rule", sorted(BROKEN))
def test_a_broken_plugin_is_found(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, code, words = BROKEN[rule]
    assert words in verdict(suite_for(answers, code, tmp_path, monkeypatch), rule)


@pytest.mark.parametrize(
    ("rule", "preset", "words"),
    [
        ("test_plugin_registers", "a string", "must return a list of ModelPreset"),
        (
            "test_sources_are_named",
            [sound(sources=SOURCES | {"gpu_count": "guess"})],
            "must name fields of a preset, got gpu_count",
        ),
        ("test_images_are_pinned", [sound(image="registry.example/runtime")], "registry.example/runtime"),
        ("test_memory_holds_the_weights", [sound(gpus=0, gpu_memory_gib=0, memory_gib=4)], "memory_gib is 4"),
    ],
)
def test_other_ways_to_break_a_rule(
    rule: str, preset: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert words in verdict(suite_for([preset], "", tmp_path, monkeypatch), rule)


def test_a_module_that_cannot_be_imported_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = suite_for([[sound()]], "raise RuntimeError('no licence file')", tmp_path, monkeypatch)
    assert "no licence file" in verdict(suite, "test_import_is_light")
