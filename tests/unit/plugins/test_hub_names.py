"""A Workspace may name a preset by the hub's name of its weights, as published documents do."""

import pytest

from kaito_core.api import Weights, parse_workspace
from kaito_core.errors import InvalidWorkspaceError, UnknownPresetError, WorkspaceError
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.resolve import resolve
from kaito_core.settings import Settings
from kaito_testing.registry import example_preset, registry_with

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def preset(name: str, repository: str, revision: str = COMMIT) -> object:
    return example_preset(name=name, weights=Weights(repository=repository, revision=revision, size_gib=1))


PRESETS = (
    preset("tiny-instruct", "acme/Tiny-Instruct-v0.3"),
    preset("wide", "acme/Wide"),
    preset("wide-long", "acme/Wide", "f" * 40),
    preset("twin-a", "acme/Twin"),
    preset("twin-b", "acme/Twin"),
)


@pytest.fixture(scope="module")
def registry() -> PluginRegistry:
    return registry_with(PRESETS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("tiny-instruct", "tiny-instruct"),
        ("acme/Tiny-Instruct-v0.3", "tiny-instruct"),
        ("ACME/tiny-instruct-V0.3", "tiny-instruct"),
        ("Tiny-Instruct-v0.3", "tiny-instruct"),
        ("acme/Tiny-Instruct-v0.3@main", "tiny-instruct"),
        (f"acme/Tiny-Instruct-v0.3@{COMMIT}", "tiny-instruct"),
        (f"acme/Tiny-Instruct-v0.3@{COMMIT[:7]}", "tiny-instruct"),
        (f"acme/wide@{COMMIT}", "wide"),
        (f"acme/wide@{'F' * 12}", "wide-long"),
    ],
)
def test_the_hubs_name_of_the_weights_is_the_preset(registry: PluginRegistry, written: str, found: str) -> None:
    assert registry.preset(written).name == found


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("acme/Twin", "'acme/Twin' is served by several presets (twin-a, twin-b); name the one you mean"),
        ("acme/wide", "'acme/wide' is served by several presets (wide, wide-long); name the one you mean"),
        ("acme/Tiny-Instruct-v0.3@012345", f"preset 'tiny-instruct' serves acme/Tiny-Instruct-v0.3@{COMMIT}"),
        ("acme/Tiny-Instruct-v0.3@v1.0", "asks for revision 'v1.0' of acme/Tiny-Instruct-v0.3, but preset"),
        ("acme/Tiny-Instruct-v0.2", "(the nearest is preset 'tiny-instruct', which serves acme/Tiny-Instruct-v0.3)"),
        ("other/Tiny-Instruct-v0.3@main", "is not an installed preset"),
    ],
)
def test_weights_that_are_not_those_of_one_preset_are_refused(
    registry: PluginRegistry, written: str, words: str
) -> None:
    with pytest.raises(InvalidWorkspaceError) as caught:
        registry.preset(written)
    assert str(caught.value).startswith("inference.preset.name ") and words in str(caught.value)


def test_a_name_that_nothing_has_is_unknown(registry: PluginRegistry) -> None:
    with pytest.raises(UnknownPresetError):
        registry.preset("Tiny-Instruct-v0.4")


def test_another_revision_may_be_on_this_machine() -> None:
    settings = Settings(allow_generic_models=True, generic_models_dir="/absent")
    known = registry_with(PRESETS, settings=settings)  # type: ignore[arg-type]
    assert known.preset("acme/Tiny-Instruct-v0.3").name == "tiny-instruct"
    with pytest.raises(InvalidWorkspaceError, match=r"needs the model's config.json: /absent/acme"):
        known.preset("acme/Tiny-Instruct-v0.3@v1.0")


def document(name: str, adapter: str = "style") -> dict[str, object]:
    source = {"name": adapter, "image": "registry.example/style:1"}
    inference = {"preset": {"name": name}, "adapters": [{"source": source, "strength": 2}]}
    head = {"apiVersion": "kaito.sh/v1beta1", "kind": "Workspace", "metadata": {"name": "w"}}
    return {**head, "inference": inference}


def test_it_is_said_which_preset_was_found(registry: PluginRegistry) -> None:
    said = [str(each) for each in resolve(parse_workspace(document("ACME/Tiny-Instruct-v0.3")), registry).notices]
    assert said == [
        "inference.preset.name 'ACME/Tiny-Instruct-v0.3' is taken as the preset 'tiny-instruct', which serves "
        "acme/Tiny-Instruct-v0.3@0123456789ab; the model id is 'tiny-instruct'",
        "inference.adapters[0].strength is applied as written: 2 is outside 0 to 1",
    ]
    (strength,) = resolve(parse_workspace(document("tiny-instruct")), registry).notices
    assert strength.field == "inference.adapters[0].strength"


def test_no_adapter_has_the_model_id_of_the_preset_that_is_found(registry: PluginRegistry) -> None:
    with pytest.raises(WorkspaceError) as caught:
        resolve(parse_workspace(document("acme/Tiny-Instruct-v0.3", adapter="tiny-instruct")), registry)
    assert str(caught.value) == (
        "inference.adapters[0].source.name must be unique, 'tiny-instruct' is also the preset that serves "
        "inference.preset.name"
    )
