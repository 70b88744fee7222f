"""Models that no plugin brings: found in folders on this machine, if that is allowed, and never asked for elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest

from kaito_core.api import parse_workspace
from kaito_core.errors import InvalidWorkspaceError
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.resolve import resolve
from kaito_core.settings import Settings
from kaito_testing.registry import registry_with

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "torch_dtype": "float32",
    "vocab_size": 1000,
}
NAME = "acme/Tiny"


def models(tmp_path: Path, files: dict[str, Any]) -> Path:
    """A folder of models that holds one, with files whose text is given, or what JSON makes of their content."""
    folder = tmp_path / NAME
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path


def registry(folder: Path | str = "") -> PluginRegistry:
    return registry_with(settings=Settings(allow_generic_models=True, generic_models_dir=str(folder)))


def test_a_model_of_the_folder_is_resolved_as_any_preset(tmp_path: Path) -> None:
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "demo"},
        "inference": {"preset": {"name": f"{NAME}@abc"}},
    }
    known = registry(models(tmp_path, {"config.json": CONFIG}))
    resolved = resolve(parse_workspace(document), known)
    assert resolved.preset is not None and resolved.weights is not None
    assert resolved.preset.name == "acme--tiny"
    command = " ".join(resolved.weights.command)
    assert "--repository acme/Tiny --revision abc" in command
    assert dict(known.presets) == {}, "it is no installed preset, and is not listed as one"


@pytest.mark.parametrize(
    ("files", "size_gib"),
    [
        ({"a.safetensors": "x" * 2**20, "b.safetensors": "y" * 2**20, "model.safetensors.index.json": "{"}, 0.002),
        ({"model.safetensors.index.json": {"metadata": {"total_size": 2**30}}}, 1),
        ({}, 0.001),  # reckoned from the configuration
    ],
)
def test_the_size_is_that_of_the_files_or_their_index(tmp_path: Path, files: dict[str, Any], size_gib: float) -> None:
    folder = models(tmp_path, {"config.json": CONFIG, **files})
    assert registry(folder).preset(NAME).weights.size_gib == size_gib


def test_without_the_setting_it_says_which_one_to_set(tmp_path: Path) -> None:
    folder = models(tmp_path, {"config.json": CONFIG})
    forbidding = registry_with(settings=Settings(generic_models_dir=str(folder)))
    for look_up in (forbidding.preset, lambda name: forbidding.adopt(name, folder / NAME)):
        with pytest.raises(InvalidWorkspaceError) as caught:
            look_up(NAME)
        assert str(caught.value) == (
            "inference.preset.name 'acme/Tiny' is not an installed preset, and presets are not made from a "
            "model's config.json here: install a plugin that brings it, or set KAITO_ALLOW_GENERIC_MODELS=true"
        )


@pytest.mark.parametrize(
    ("files", "name", "message"),
    [
        ({}, NAME, "'acme/Tiny' needs the model's config.json: "),
        ({}, "acme/Other", "'acme/Other' needs the model's config.json: "),
        ({"config.json": "{"}, NAME, "is not valid JSON: "),
        ({"config.json": [1]}, NAME, "must hold a mapping, got a list"),
        ({"config.json": CONFIG, "model.safetensors.index.json": {}}, NAME, "has no metadata.total_size in bytes, got"),
        ({"config.json": CONFIG, "model.safetensors.index.json": {"metadata": {"total_size": "1"}}}, NAME, "got '1'"),
        ({}, "../../etc", "must be the name of a preset, ORG/MODEL or ORG/MODEL@REVISION, got '../../etc'"),
        ({}, "/etc/passwd", "must be the name of a preset, ORG/MODEL or ORG/MODEL@REVISION, got '/etc/passwd'"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, files: dict[str, Any], name: str, message: str) -> None:
    with pytest.raises(InvalidWorkspaceError) as caught:
        registry(models(tmp_path, files)).preset(name)
    assert message in str(caught.value)


def test_without_a_folder_it_says_where_to_put_the_configuration() -> None:
    with pytest.raises(InvalidWorkspaceError) as caught:
        registry().preset(NAME)
    assert str(caught.value) == (
        "inference.preset.name 'acme/Tiny' is not an installed preset, and its configuration is not on this machine: "
        "set KAITO_GENERIC_MODELS_DIR to a folder with acme/Tiny/config.json, or name the model's folder with kaito up "
        "--weights"
    )


def test_a_folder_of_weights_is_adopted_for_one_name(tmp_path: Path) -> None:
    folder = models(tmp_path, {"config.json": CONFIG}) / NAME
    known = registry()
    known.adopt("installed-preset", folder)  # not of the form org/model: nothing to do
    known.adopt("acme/other", folder.parent)  # no configuration there
    known.adopt(NAME, folder)
    assert known.preset(NAME).architecture == "LlamaForCausalLM"
    with pytest.raises(InvalidWorkspaceError):
        known.preset("acme/other")
