"""From names to what plugins bring: presets, sources, weights, and plugins that misbehave while asked."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from kaito_core import hookimpl
from kaito_core.api import AdapterRef, FetchStep, Weights, parse_workspace
from kaito_core.errors import FieldError, UnknownPresetError, UnknownSourceError, WorkspaceError
from kaito_core.reconcile.resolve import Resolved, resolve
from kaito_core.testing.registry import example_preset, registry_with

GATED = example_preset(name="gated", weights=Weights(repository="o/gated", revision="r", size_gib=1, gated=True))
OPTIONS = "inference.preset.presetOptions"


class Moody:
    """A source whose scheme says how it fails."""

    name = "moody"
    schemes = ("checks", "raises", "fetches", "lates")

    def check(self, ref: AdapterRef) -> Iterable[FieldError]:
        if ref.scheme == "raises":
            raise ZeroDivisionError("by zero")
        if ref.scheme == "checks":
            yield FieldError(ref.field, "is not to my liking")
        if ref.scheme == "lates":
            raise ValueError("late")

    def fetch(self, ref: AdapterRef, target: str) -> FetchStep:
        raise KeyError("bucket")


def resolved(preset: Any = "example-7b", *origins: dict[str, Any], plugins: Sequence[object] = ()) -> Resolved:
    spec = {"name": preset} if isinstance(preset, str) else preset
    adapters = [{"source": {"name": f"a{index}", **origin}} for index, origin in enumerate(origins)]
    registry = registry_with([example_preset(), GATED], sources=[Moody()])
    for index, plugin in enumerate(plugins):
        registry.register(plugin, f"plugin-{index}")
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "demo"},
        "inference": {"preset": spec, "adapters": adapters},
    }
    return resolve(parse_workspace(document), registry)


def test_an_image_adapter_is_copied_by_its_own_image() -> None:
    result = resolved("example-7b", {"image": "registry.example/style:1", "imagePullSecrets": ["pull"]})
    ((folder, step),) = result.adapters.items()
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
    ],
)
def test_a_source_that_refuses_or_breaks(uri: str, message: str) -> None:
    with pytest.raises(WorkspaceError) as caught:
        resolved("example-7b", {"image": "registry.example/a:1"}, {"uri": uri})
    (error,) = caught.value.errors
    assert error.field == "inference.adapters[1].source.uri"
    assert message in error.message
    assert caught.value.reason == "InvalidAdapter"


def test_the_faults_of_all_adapters_are_told() -> None:
    with pytest.raises(WorkspaceError) as caught:
        resolved("example-7b", {"uri": "checks://x"}, {"uri": "raises://x"})
    assert len(caught.value.errors) == 2


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ({"name": "gated"}, f"{OPTIONS}.modelAccessSecret is required: 'o/gated' is gated; name a Secret"),
        ({"name": "example-7b", "accessMode": "private"}, f"{OPTIONS}.image is required where accessMode is private"),
    ],
)
def test_weights_that_cannot_be_had(preset: dict[str, Any], message: str) -> None:
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
    assert (step.image, step.pull_secrets) == ("registry.example/w:1", ("pull",))


class Strict:
    @hookimpl
    def kaito_validate_workspace(self, workspace: Any, preset: Any) -> list[FieldError]:
        return [FieldError("metadata.name", f"must be longer than '{workspace.name}' for {preset.name}")]


def test_a_plugin_may_object() -> None:
    with pytest.raises(WorkspaceError, match=r"^metadata\.name must be longer than 'demo' for example-7b$"):
        resolved(plugins=[Strict()])
