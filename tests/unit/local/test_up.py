"""What `kaito up` refuses before it downloads or starts anything."""

from pathlib import Path
from typing import Any

import pytest

from kaito_core.api import parse_workspace
from kaito_core.errors import ConfigError
from kaito_core.local import up
from kaito_core.local.machine import Machine
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.resolve import Resolved, resolve
from kaito_core.settings import Settings

REGISTRY = PluginRegistry.discover(Settings())


def workspace(preset: str, **options: Any) -> Resolved:
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "w"},
        "inference": {"preset": {"name": preset, "presetOptions": options}},
    }
    return resolve(parse_workspace(document), REGISTRY)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def serve(resolved: Resolved, weights: Path | None = None) -> tuple[str, ...]:
    """Returns the notes with which the pod would be run."""
    notes: list[str] = []

    async def run_pod(*arguments: Any) -> int:
        notes.extend(arguments[-1])
        return 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(up, "run_pod", run_pod)
        assert up.serve_locally(resolved, Settings(), port=0, weights=weights, images={}) == 0
    return tuple(notes)


def test_a_model_that_is_too_large_is_refused_before_it_is_downloaded(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(up, "this_machine", lambda weights: Machine(8.0, 500.0, has_gpu=False))
    with pytest.raises(ConfigError, match=r"^falcon-7b needs at least 13\.4 GiB of memory"):
        serve(workspace("falcon-7b"))


def test_weights_of_the_user_are_tried_on_a_small_machine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "this_machine", lambda weights: Machine(8.0, 500.0, has_gpu=False))
    (note,) = serve(workspace("falcon-7b"), weights=home)
    assert note.startswith("warning: falcon-7b needs between 13.4 and 26.9 GiB of memory")


@pytest.mark.parametrize(
    ("preset", "note"),
    [
        ("smollm2-135m-instruct", None),
        ("falcon-7b", None),
        ("falcon-40b", "note: on a cluster falcon-40b uses 2 GPUs; here it is served by"),
        (
            "llama-2-70b",
            "note: on a cluster llama-2-70b uses 8 GPUs on several nodes; here it is served by",
        ),
    ],
)
def test_one_process_is_no_surprise(preset: str, note: str | None, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(up, "this_machine", lambda weights: Machine(4096.0, 500.0, has_gpu=True))
    options = {"modelAccessSecret": "token"} if preset.startswith("llama") else {}
    notes = serve(workspace(preset, **options), weights=home)
    assert [text[: len(note or "")] for text in notes] == ([note] if note else [])


def test_weights_in_an_image_must_be_copied_out_first(home: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        serve(workspace("falcon-7b", image="registry.example/falcon:1"))
    assert str(caught.value) == (
        "inference.preset.presetOptions.image: kaito up runs no images; copy the weights out of "
        "'registry.example/falcon:1' and name their folder with --weights"
    )
    assert not (home / ".cache").exists()
