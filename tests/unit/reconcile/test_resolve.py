"""From names to what plugins bring: presets, sources, weights, and plugins that misbehave while asked."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from kaito_core import hookimpl
from kaito_core.api import (
    AdapterRef,
    Cluster,
    FetchStep,
    GpuSku,
    NodeRequest,
    NodeState,
    ResourceType,
    Weights,
    parse_workspace,
)
from kaito_core.errors import DoesNotFitError, FieldError, UnknownPresetError, UnknownSourceError, WorkspaceError
from kaito_core.reconcile.resolve import Resolved, resolve
from kaito_testing.registry import example_preset, registry_with

PRIVATE = example_preset(name="private", access="private")
GATED = example_preset(name="gated", weights=Weights(repository="o/gated", revision="r", size_gib=1, gated=True))
OPTIONS = "inference.preset.presetOptions"


class Moody:
    """A source whose scheme says how it fails."""

    name = "moody"
    schemes = ("checks", "raises", "fetches", "lates", "exits")

    def check(self, ref: AdapterRef) -> Iterable[FieldError]:
        if ref.scheme == "raises":
            raise ZeroDivisionError("by zero")
        if ref.scheme == "checks":
            yield FieldError(ref.field, "is not to my liking")
        if ref.scheme == "lates":
            raise ValueError("late")
        if ref.scheme == "exits":
            sys.exit(3)

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        raise KeyError("bucket")


class Machines:
    """A provider with two machine types."""

    name = "machines"
    creates_nodes = True
    watches: Sequence[ResourceType] = ()

    def skus(self) -> Sequence[GpuSku]:
        return (GpuSku("Tiny-1", 1, 8, "T4"), GpuSku("Large-1", 1, 80, "A100"))

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        raise AssertionError("nothing is asked for while a Workspace is resolved")

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        return True


def resolved(
    preset: Any = "example-7b", *origins: dict[str, Any], plugins: Sequence[object] = (), machine: str = ""
) -> Resolved:
    spec = {"name": preset} if isinstance(preset, str) else preset
    adapters = [{"source": {"name": f"a{index}", **origin}} for index, origin in enumerate(origins)]
    registry = registry_with([example_preset(), GATED, PRIVATE], [Machines()], sources=[Moody()])
    for index, plugin in enumerate(plugins):
        registry.register(plugin, f"plugin-{index}")
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "demo"},
        "resource": {"instanceType": machine},
        "inference": {"preset": spec, "adapters": adapters},
    }
    return resolve(parse_workspace(document), registry)


def test_an_image_adapter_is_copied_by_its_own_image() -> None:
    result = resolved("example-7b", {"image": "registry.example/style:1", "imagePullSecrets": ["pull"]})
    (adapter,) = result.adapters
    folder, step = adapter.ref.folder, adapter.fetch
    assert step.image == "registry.example/style:1"
    assert step.command == ("/bin/sh", "-c", f"mkdir -p /mnt/adapter/{folder} && cp -r /data/. /mnt/adapter/{folder}")
    assert step.pull_secrets == ("pull",)


def test_an_unknown_preset() -> None:
    with pytest.raises(
        UnknownPresetError, match=r"^inference\.preset\.name 'falcn' is not .* \(known: example-7b, gated"
    ):
        resolved("falcn")


@pytest.mark.parametrize(
    ("origin", "field"),
    [
        ({"uri": "ftp://x/y"}, "inference.adapters[0].source.uri"),
        ({"urls": ["ftp://x/y"]}, "inference.adapters[0].source.urls[0]"),
    ],
)
def test_an_unknown_scheme(origin: dict[str, Any], field: str) -> None:
    with pytest.raises(UnknownSourceError) as caught:
        resolved("example-7b", origin)
    assert str(caught.value).startswith(
        f"{field} has the scheme 'ftp', which no installed adapter source reads (known:"
    )
    assert caught.value.reason == "UnknownAdapterSource"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("checks://x", "is not to my liking"),
        ("raises://x", "the adapter source 'moody' of plugin 'given' failed with ZeroDivisionError: by zero"),
        ("fetches://x", "the adapter source 'moody' of plugin 'given' failed with KeyError: 'bucket'"),
        ("lates://x", "the adapter source 'moody' of plugin 'given' failed with ValueError: late"),
        ("exits://x", "plugin 'given': check of adapter source 'moody' raised SystemExit: 3"),
    ],
)
def test_a_source_that_refuses_or_breaks(uri: str, message: str) -> None:
    with pytest.raises(WorkspaceError) as caught:
        resolved("example-7b", {"image": "registry.example/a:1"}, {"uri": uri})
    (error,) = caught.value.errors
    assert error.field == "inference.adapters[1].source.uri"
    assert message in error.message
    assert caught.value.reason == "InvalidAdapter"


def test_the_faults_of_all_adapters_are_reported() -> None:
    with pytest.raises(WorkspaceError) as caught:
        resolved("example-7b", {"uri": "checks://x"}, {"uri": "raises://x"})
    assert len(caught.value.errors) == 2


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ({"name": "gated"}, f"{OPTIONS}.modelAccessSecret is required: 'o/gated' is gated; name a Secret"),
        (
            {"name": "private"},
            f"{OPTIONS}.modelAccessSecret is required: 'example/example-7b' is private; name a Secret",
        ),
        ({"name": "example-7b", "accessMode": "private"}, f"{OPTIONS}.image is required where accessMode is private"),
    ],
)
def test_weights_without_access_are_refused(preset: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkspaceError) as caught:
        resolved(preset)
    assert str(caught.value).startswith(message)


def test_weights_of_a_gated_model_with_a_secret() -> None:
    step = resolved({"name": "gated", "presetOptions": {"modelAccessSecret": "hf"}}).weights
    assert step is not None
    assert (step.image, step.secret_env) == (None, {"HF_TOKEN": ("hf", "HF_TOKEN")})
    assert step.command[:4] == ("kaito-runtime", "fetch-weights", "--repository", "o/gated")


def test_weights_in_the_users_image() -> None:
    options = {"image": "registry.example/w:1", "imagePullSecrets": ["pull"]}
    step = resolved({"name": "gated", "accessMode": "private", "presetOptions": options}).weights
    assert step is not None
    assert (step.image, step.pull_secrets, step.pull_policy) == ("registry.example/w:1", ("pull",), "")


def test_pull_secrets_are_used_for_the_runtimes_own_image_too() -> None:
    step = resolved({"name": "example-7b", "presetOptions": {"imagePullSecrets": ["pull"]}}).weights
    assert step is not None and (step.image, step.pull_secrets) == (None, ("pull",))


def test_a_private_preset_is_served_from_an_image_or_with_a_secret() -> None:
    for options in ({"image": "registry.example/w:1"}, {"modelAccessSecret": "hf"}):
        assert resolved({"name": "private", "presetOptions": options}).weights is not None


def test_adapters_on_the_hub_get_the_token_in_their_environment_only() -> None:
    spec = {"name": "example-7b", "presetOptions": {"modelAccessSecret": "hf"}}
    adapters = resolved(spec, {"uri": "hf://o/private"}, {"image": "registry.example/a:1"}).adapters
    hub, image = (adapter.fetch for adapter in adapters)
    assert hub.secret_env == {"HF_TOKEN": ("hf", "HF_TOKEN")}
    assert "hf" not in hub.command and not any("HF_TOKEN" in word for word in hub.command)
    assert image.secret_env == {}  # somebody else's image is given no token
    (alone,) = resolved("example-7b", {"uri": "hf://o/public"}).adapters
    assert alone.fetch.secret_env == {}


def test_the_token_does_not_make_another_adapter() -> None:
    spec = {"name": "example-7b", "presetOptions": {"modelAccessSecret": "hf"}}
    folders = [resolved(preset, {"uri": "hf://o/a"}).adapters[0].ref.folder for preset in (spec, "example-7b")]
    assert folders[0] == folders[1]


def test_a_machine_that_is_too_small_is_refused_before_it_is_asked_for() -> None:
    with pytest.raises(DoesNotFitError, match=r"Tiny-1 has 8 GiB; the smallest .* is Large-1 \(1 GPU, 80 GiB\)$"):
        resolved(machine="tiny-1")
    assert [sku.name for sku in resolved(machine="LARGE-1").machines] == ["Tiny-1", "Large-1"]
    assert resolved(machine="unknown-1").machines == ()


class Strict:
    @hookimpl
    def kaito_validate_workspace(self, workspace: Any, preset: Any) -> list[FieldError]:
        return [FieldError("metadata.name", f"must be longer than '{workspace.name}' for {preset.name}")]


def test_a_plugin_may_object() -> None:
    with pytest.raises(
        WorkspaceError, match=r"^metadata\.name must be longer than 'demo' for example-7b \(says plugin 'plugin-0'\)$"
    ):
        resolved(plugins=[Strict()])
