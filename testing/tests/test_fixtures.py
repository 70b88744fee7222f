"""The fixtures that plugin authors get by installing kaito."""

from pathlib import Path
from typing import Any

from kaito_core.api.conditions import timestamp


def test_registry_has_what_is_installed(kaito_registry: Any) -> None:
    assert "falcon-7b" in kaito_registry.presets
    assert not kaito_registry.failures


def test_clock_stands_still_until_it_is_moved(kaito_clock: Any) -> None:
    before = timestamp(kaito_clock())
    assert timestamp(kaito_clock()) == before == "2026-01-01T00:00:00Z"
    assert timestamp(kaito_clock.advance(61)) == timestamp(kaito_clock()) == "2026-01-01T00:01:01Z"


def test_tiny_models_are_on_disk(tiny_llama: Path, tiny_adapters: Path) -> None:
    assert (tiny_llama / "config.json").exists()
    assert sorted(path.name for path in tiny_adapters.iterdir()) == ["one", "two"]
