"""What a pass reads from a Workspace is parsed once, and is a number or a checked text from there on."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from kaito_core.api import adapter as adapter_module
from kaito_core.api import strength as strength_module
from kaito_core.builtin import image as image_module

Make = Callable[..., Any]


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> Counter[Any]:
    """Counts the calls of a function by its argument."""
    calls: Counter[Any] = Counter()
    original = getattr(module, name)

    def count(argument: Any) -> Any:
        calls[argument] += 1
        return original(argument)

    monkeypatch.setattr(module, name, count)
    return calls


def test_each_strength_and_image_reference_is_parsed_once(
    world: Make, adapters: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    inference = adapters(a="0.1", b=0.2, c="-3e-1")
    w = world({**inference, "blends": [{"name": "mix", "strengths": {"a": "0.4", "b": 5}}]})
    strengths = counted(monkeypatch, strength_module, "parse_strength")
    images = counted(monkeypatch, image_module, "is_image_reference")
    w.plan()
    assert strengths == {"0.1": 1, 0.2: 1, "-3e-1": 1, "0.4": 1, 5: 1}
    assert images == {f"registry.example/{name}:1": 1 for name in "abc"}


def test_the_revision_of_each_reference_is_computed_once(
    world: Make, adapters: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = counted(monkeypatch, adapter_module.hashlib, "sha256")
    world(adapters(a=1, b=1)).plan()
    assert {text.partition(b"\n")[0]: count for text, count in hashed.items() if text.startswith((b"a\n", b"b\n"))} == {
        b"a": 1,
        b"b": 1,
    }
