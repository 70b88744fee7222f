"""Plugins as objects: wrong answers, conflicts, rollback, and what the registry asks them later."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from kaito_core import hookimpl
from kaito_core.api import (
    AdapterRef,
    Cluster,
    FetchStep,
    GpuSku,
    NodeProvider,
    NodeRequest,
    NodeState,
    ResourceType,
    Workspace,
    parse_workspace,
)
from kaito_core.api.workspace.model import Resource
from kaito_core.builtin import plugin as builtin
from kaito_core.errors import (
    FieldError,
    PluginConflictError,
    PluginError,
    PluginLoadError,
    UnknownHookError,
    UnknownInstanceTypeError,
    UnknownPresetError,
    UnknownProviderError,
    UnknownSourceError,
)
from kaito_core.plugins import PluginRegistry
from kaito_core.settings import Settings
from kaito_testing.registry import example_preset, registry_with


class Provider:
    def __init__(self, name: Any = "here", *, creates: bool = False, skus: Sequence[str] = ()) -> None:
        self.name = name
        self.creates_nodes = creates
        self.watches: Sequence[ResourceType] = ()
        self._skus = skus

    def skus(self) -> Sequence[GpuSku]:
        return [GpuSku(name, 1, 80.0, "GPU") for name in self._skus]

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        return NodeState(())

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        return True


class Uncalled(Provider):
    name, creates_nodes, watches = "uncalled", False, ()


class Source:
    def __init__(self, name: Any = "s3", schemes: Any = ("s3",)) -> None:
        self.name = name
        self.schemes = schemes

    def check(self, ref: AdapterRef) -> Sequence[FieldError]:
        return ()

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        return FetchStep(command=("true",))


def plugin(**hooks: Callable[..., Any]) -> object:
    """A plugin object with hooks, by name; a hook takes no arguments unless it says so."""
    return type("Fake", (), {name: staticmethod(hookimpl(function)) for name, function in hooks.items()})()


def presets(answer: Callable[[], Any]) -> object:
    return plugin(kaito_model_presets=lambda: answer())


def providers(answer: Callable[[], Any]) -> object:
    return plugin(kaito_node_providers=lambda: answer())


def sources(answer: Callable[[], Any]) -> object:
    return plugin(kaito_adapter_sources=lambda: answer())


def late() -> Iterator[Any]:
    yield example_preset(name="early-bird")
    raise RuntimeError("too late")


async def coroutine() -> list[Any]:
    return []


async def stream() -> Any:
    yield example_preset()


def workspace(**annotations: str) -> Workspace:
    return parse_workspace(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": "demo", "annotations": annotations},
            "resource": {"instanceType": "big"},
            "inference": {"preset": {"name": "example-7b"}},
        }
    )


WRONG: dict[str, tuple[object, type[PluginError], str]] = {
    "text instead of a list": (
        presets(lambda: "falcon"),
        PluginLoadError,
        "TypeError: kaito_model_presets must return a list of ModelPreset, got str",
    ),
    "a preset instead of a list": (
        presets(example_preset),
        PluginLoadError,
        "TypeError: kaito_model_presets must return a list of ModelPreset, got an item ('name', 'example-7b')",
    ),
    "a mapping": (
        presets(lambda: {"a": example_preset()}),
        PluginLoadError,
        "TypeError: kaito_model_presets must return a list of ModelPreset, got dict",
    ),
    "a preset without an image": (
        presets(lambda: [example_preset(image="")]),
        PluginLoadError,
        "ModelPreset: image must have at least 1 character, got ''",
    ),
    "a preset of negative memory and of a field that is none": (
        presets(lambda: [example_preset(gpu_memory_gib=-1, memory=2)]),
        PluginLoadError,
        "ModelPreset: gpu_memory_gib must be greater than or equal to 0, got -1; memory is not a field of a preset; "
        "did you mean memory_gib?",
    ),
    "a number": (
        presets(lambda: 3),
        PluginLoadError,
        "TypeError: kaito_model_presets must return a list of ModelPreset, got int",
    ),
    "names instead of presets": (
        presets(lambda: ["falcon"]),
        PluginLoadError,
        "TypeError: kaito_model_presets must return a list of ModelPreset, got an item 'falcon'",
    ),
    "a hook that raises": (presets(lambda: 1 / 0), PluginLoadError, "ZeroDivisionError: division by zero"),
    "a hook that exits": (presets(lambda: exit(1)), PluginLoadError, "SystemExit: 1"),
    "a generator that raises late": (presets(late), PluginLoadError, "RuntimeError: too late"),
    "a coroutine": (
        plugin(kaito_model_presets=coroutine),
        PluginLoadError,
        "TypeError: kaito_model_presets must be a plain function: hooks are synchronous, it is `async def`",
    ),
    "an asynchronous generator": (
        plugin(kaito_validate_workspace=stream),
        PluginLoadError,
        "TypeError: kaito_validate_workspace must be a plain function: hooks are synchronous, it is `async def`",
    ),
    "a wrapper": (
        type("Fake", (), {"kaito_model_presets": hookimpl(wrapper=True)(lambda self: (yield))})(),
        PluginLoadError,
        "TypeError: kaito_model_presets must be a plain function, not a wrapper of other plugins' hooks",
    ),
    "a misspelt hook": (
        plugin(kaito_presets=lambda: [example_preset()]),
        UnknownHookError,
        "PluginValidationError: unknown hook 'kaito_presets'",
    ),
    "a preset twice": (
        presets(lambda: [example_preset(), example_preset()]),
        PluginConflictError,
        "duplicate preset 'example-7b'",
    ),
    "a class instead of a provider": (
        providers(lambda: [Uncalled]),
        PluginLoadError,
        "TypeError: kaito_node_providers must return a list of NodeProvider, got an item <class",
    ),
    "half a provider": (
        providers(lambda: [Source()]),
        PluginLoadError,
        "TypeError: kaito_node_providers must return a list of NodeProvider, got an item <",
    ),
    "a provider without a name": (
        providers(lambda: [Provider("")]),
        PluginLoadError,
        "TypeError: kaito_node_providers must return records whose name is a string, got ''",
    ),
    "a provider with a number for a name": (
        providers(lambda: [Provider(7)]),
        PluginLoadError,
        "TypeError: kaito_node_providers must return records whose name is a string, got 7",
    ),
    "schemes as text": (
        sources(lambda: [Source(schemes="s3")]),
        PluginLoadError,
        "TypeError: kaito_adapter_sources: the schemes of 's3' must be a tuple of lower-case strings, got 's3'",
    ),
    "schemes in capitals": (
        sources(lambda: [Source(schemes=("S3",))]),
        PluginLoadError,
        "TypeError: kaito_adapter_sources: the schemes of 's3' must be a tuple of lower-case strings, got ('S3',)",
    ),
    "a scheme of a built-in source": (
        sources(lambda: [Source(schemes=("s3", "image"))]),
        PluginConflictError,
        "the adapter scheme 'image' is provided by builtin and by broken (kaito-broken 1): uninstall one",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_broken_plugin_is_refused_and_nothing_of_it_remains(what: str) -> None:
    broken, kind, message = WRONG[what]
    registry = registry_with([example_preset(name="fine")])
    before = (dict(registry.presets), dict(registry.providers), dict(registry.sources))
    with pytest.raises(PluginError) as caught:
        registry.register(broken, "broken", "kaito-broken 1")
    assert type(caught.value) is kind
    assert str(caught.value).startswith(message)
    assert (caught.value.plugin, caught.value.distribution) == ("broken", "kaito-broken 1")
    assert (dict(registry.presets), dict(registry.providers), dict(registry.sources)) == before
    (failure,) = registry.failures
    assert (failure.name, failure.state, failure.error) == ("broken", "failed", str(caught.value))
    # Its hooks are not called any more either.
    assert registry.objections(workspace(), None) == []


def test_all_that_a_half_broken_plugin_brings_is_left_out() -> None:
    half = plugin(kaito_model_presets=lambda: [example_preset()], kaito_node_providers=lambda: 1 / 0)
    registry = registry_with()
    with pytest.raises(PluginLoadError):
        registry.register(half, "half")
    assert dict(registry.presets) == {}
    with pytest.raises(KeyError):
        registry.origin("preset", "example-7b")
    registry.register(presets(lambda: [example_preset()]), "whole")
    assert registry.origin("preset", "example-7b") == "whole"


def test_unknown_names_list_the_known_ones() -> None:
    registry = registry_with([example_preset(name="b"), example_preset(name="a")])
    with pytest.raises(UnknownPresetError) as preset:
        registry.preset("falcn-7b")
    assert str(preset.value) == (
        "inference.preset.name 'falcn-7b' is not an installed preset (known: a, b); install the plugin that brings it"
    )
    with pytest.raises(UnknownSourceError) as source:
        registry.source("ftp", "inference.adapters[0].source.uri")
    assert str(source.value) == (
        "inference.adapters[0].source.uri has the scheme 'ftp', which no installed adapter source reads (known: file, "
        "hf, http, https, image, volume)"
    )


def test_settings_reach_the_plugin() -> None:
    seen: list[object] = []

    def kaito_node_providers(settings: Settings) -> list[NodeProvider]:
        seen.append(settings)
        return []

    registry = PluginRegistry(Settings(max_surge=3))
    registry.register(plugin(kaito_node_providers=kaito_node_providers), "asks")
    assert seen == [Settings(max_surge=3)]


ANNOTATION = "kaito.sh/node-provider"


@pytest.mark.parametrize(
    ("annotation", "setting", "big_at", "chosen"),
    [
        ("", "", "", "found"),  # the one that has nodes of the type
        ("", "", "made", "made"),  # the one that knows it
        ("", "found", "made", "found"),  # the settings are asked before the plugins
        ("made", "found", "", "made"),  # the Workspace before the settings
    ],
)
def test_the_provider_of_a_workspace(annotation: str, setting: str, big_at: str, chosen: str) -> None:
    made = Provider("made", creates=True, skus=["BIG"] if big_at == "made" else [])
    registry = registry_with(providers=[made, Provider("found")], settings=Settings(node_provider=setting))
    asking = workspace(**({ANNOTATION: annotation} if annotation else {}))
    assert registry.provider(asking, node_types={"big"}).name == chosen


@pytest.mark.parametrize(
    ("annotations", "setting", "message"),
    [
        (
            {ANNOTATION: "aws"},
            "",
            "metadata.annotations[kaito.sh/node-provider] 'aws' is not an installed node provider "
            "(known: made, scheduler)",
        ),
        ({}, "aws", "KAITO_NODE_PROVIDER 'aws' is not an installed node provider (known: made, scheduler)"),
        (
            {},
            "",
            "resource.instanceType 'big' is not a machine type that an installed node provider makes (made), and no "
            "node of the cluster has it; nearest known types: BIGGER; correct it, leave it out where nodes are "
            "prepared, or name a provider with the annotation kaito.sh/node-provider",
        ),
    ],
)
def test_no_provider(annotations: dict[str, str], setting: str, message: str) -> None:
    made = Provider("made", creates=True, skus=["BIGGER", "SMALL"])
    registry = registry_with(providers=[made], settings=Settings(node_provider=setting))
    with pytest.raises((UnknownProviderError, UnknownInstanceTypeError)) as caught:
        registry.provider(workspace(**annotations))
    assert str(caught.value) == message


def test_without_a_type_and_without_prepared_nodes_there_is_no_provider() -> None:
    registry = registry_with(providers=[Provider("made", creates=True)])
    typeless = workspace().model_copy(update={"resource": Resource()})
    with pytest.raises(UnknownProviderError) as caught:
        registry.provider(typeless)
    assert str(caught.value) == "resource.instanceType is served by no installed node provider (known: made)"


def test_a_plugin_chooses_before_the_built_in_answer() -> None:
    registry = registry_with(providers=[Provider("a"), Provider("b")])
    registry.register(plugin(kaito_select_node_provider=lambda candidates: candidates[-1]), "chooser")
    assert registry.provider(workspace()).name == "b"


@pytest.mark.parametrize(
    ("choose", "reported"),
    [(lambda: 1 / 0, 1), (lambda: exit(1), 1), (lambda: "b", 1), (lambda: Provider("b"), 1), (lambda: None, 0)],
    ids=["raises", "exits", "name", "stranger", "nothing"],
)
def test_a_plugin_that_chooses_badly_is_passed_over(
    choose: Callable[[], Any], reported: int, caplog: pytest.LogCaptureFixture
) -> None:
    registry = registry_with(providers=[Provider("a"), Provider("b")])
    registry.register(plugin(kaito_select_node_provider=lambda: choose()), "chooser")
    assert registry.provider(workspace(), node_types={"big"}).name == "a"
    assert len([record for record in caplog.records if "chooser" in record.getMessage()]) == reported


def test_objections_come_from_every_plugin() -> None:
    registry = registry_with()
    for name in ("one", "two"):
        registry.register(plugin(kaito_validate_workspace=lambda n=name: [FieldError(n, "is bad")]), name)
    registry.register(plugin(kaito_validate_workspace=lambda: None), "silent")
    assert sorted(error.field for error in registry.objections(workspace(), None)) == ["one", "two"]


@pytest.mark.parametrize(
    "hook",
    [lambda: 1 / 0, lambda: exit(1), lambda: "no", lambda: ["no"], late],
    ids=["raise", "exit", "str", "list", "late"],
)
def test_a_plugin_that_fails_to_object_is_ignored_and_reported(
    hook: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    registry = registry_with()
    registry.register(plugin(kaito_validate_workspace=lambda: [FieldError("x", "is bad")]), "good")
    registry.register(plugin(kaito_validate_workspace=lambda: hook()), "bad")
    with caplog.at_level(logging.ERROR):
        assert registry.objections(workspace(), None) == [FieldError("x", "is bad (says plugin 'good')")]
    assert [record.getMessage() for record in caplog.records] == ["plugin 'bad': kaito_validate_workspace failed"]


def test_observers_hear_the_outcome_and_their_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []
    registry = registry_with()
    registry.register(plugin(kaito_reconciled=lambda outcome: heard.append(outcome)), "good")
    registry.register(plugin(kaito_reconciled=lambda: 1 / 0), "bad")
    registry.register(plugin(kaito_reconciled=lambda: True), "chatty")
    registry.reconciled(workspace(), "Ready")
    assert heard == ["Ready"]
    assert [record.getMessage() for record in caplog.records] == ["plugin 'bad': kaito_reconciled failed"]


def test_the_views_cannot_be_written() -> None:
    registry = registry_with([example_preset()])
    with pytest.raises(TypeError):
        registry.presets["x"] = example_preset()  # type: ignore[index]


def test_a_name_can_be_registered_once() -> None:
    registry = PluginRegistry()
    registry.register(builtin, "builtin")
    with pytest.raises(PluginConflictError, match="the plugin name is taken: builtin came before builtin"):
        registry.register(presets(list), "builtin")


def test_a_provider_whose_machine_types_cannot_be_read_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Provider):
        def skus(self) -> Sequence[GpuSku]:
            raise RuntimeError("no table")

    class Wordy(Provider):
        def skus(self) -> Any:
            return "big"

    registry = registry_with(providers=[Failing("a"), Wordy("b"), Provider("c", skus=["BIG"])])
    assert [(name, sku.name) for name, sku in registry.machines()] == [("c", "BIG")]
    assert registry.sku("big") == GpuSku("BIG", 1, 80.0, "GPU")
    assert "plugin 'given': skus of node provider 'a' failed" in caplog.text
    assert "skus of node provider 'b' must return a list of GpuSku, got str" in caplog.text


def test_the_scheduler_serves_where_it_is_named_or_set() -> None:
    prepared, cloud = Provider("prepared"), Provider("cloud", creates=True, skus=["big"])
    registry = registry_with(providers=[prepared, cloud])
    named = workspace(**{"kaito.sh/node-provider": "scheduler"})
    typeless = workspace().model_copy(update={"resource": Resource()})
    assert registry.provider(named).name == "scheduler"
    assert registry.provider(typeless).name == "prepared"
    autoscaled = registry_with(providers=[prepared, cloud], settings=Settings(autoscaled_nodes=True))
    assert autoscaled.provider(typeless).name == "scheduler"
    assert autoscaled.provider(workspace()).name == "cloud", "its machine type is one that a cloud makes"
    unlisted = workspace().model_copy(update={"resource": Resource.model_validate({"instanceType": "other"})})
    assert autoscaled.provider(unlisted).name == "scheduler"


def test_a_provider_that_breaks_later_keeps_the_others(caplog: pytest.LogCaptureFixture) -> None:
    broken, whole = Provider("broken", creates=True), Provider("whole", creates=True, skus=["big"])
    broken.makes_type = lambda instance_type: exit(1)  # type: ignore[attr-defined]
    registry = registry_with(providers=[broken, whole])
    broken.watches = "nodes"  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR):
        assert registry.watched_types() == ()
        assert registry.provider(workspace()).name == "whole"
        unlisted = workspace().model_copy(update={"resource": Resource.model_validate({"instanceType": "other"})})
        with pytest.raises(UnknownInstanceTypeError):
            registry.provider(unlisted)
    assert "watches of node provider 'broken' failed" in caplog.text
    assert "node provider 'broken' failed: 1" in caplog.text
