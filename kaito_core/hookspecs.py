"""The hooks that a plugin may implement: when each is called, and what happens if it fails.

Hooks are synchronous and cheap and return typed records; behaviour with I/O lives on the Protocol objects that they
return. An implementation is a function of the same name marked with `kaito_core.hookimpl`; it may leave out
arguments that it does not need. The operator calls hooks in threads of their own, one at a time: a call of more than
0.5 seconds is named in the log, one of more than 30 fails the pass, whose status then names it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pluggy import HookspecMarker

if TYPE_CHECKING:
    from kaito_core.api import AdapterSource, ModelPreset, NodeProvider, PodChange, Workspace
    from kaito_core.errors import FieldError
    from kaito_core.settings import Settings

__all__ = ["API_VERSION", "PROJECT", "RUNTIME_GROUP"]

PROJECT = "kaito"  #: pluggy project, and entry-point group of the operator half of plugins
RUNTIME_GROUP = "kaito_runtime"  #: entry-point group of the runtime half
#: Version of these hooks. A plugin may ask for one with an entry point of the same name in the group `kaito.api`
#: whose value is "vN", a plugin file with a line `KAITO_API = N`; one that asks for another version is not imported.
API_VERSION = 1

hookspec = HookspecMarker(PROJECT)


@hookspec
def kaito_model_presets() -> Iterable[ModelPreset]:  # type: ignore[empty-body]
    """Return the presets that this plugin brings. Called once, at start.

    Names are unique across plugins: a plugin that repeats a name is disabled whole, as is one whose hook raises.

    Example:
        @hookimpl
        def kaito_model_presets():
            weights = Weights(repository="example/tiny-1b", revision="0123456789abcdef", size_gib=2)
            return [
                ModelPreset(
                    name="tiny-1b",
                    family="tiny",
                    architecture="LlamaForCausalLM",
                    weights=weights,
                    gpus=1,
                    gpu_memory_gib=5.5,
                    memory_gib=16,
                    disk_gib=40,
                    context_length=2048,
                    kv_bytes_per_token=8192,
                    license="Apache-2.0",
                )
            ]
    """


@hookspec
def kaito_node_providers(settings: Settings) -> Iterable[NodeProvider]:  # type: ignore[empty-body]
    """Return the node providers that this plugin brings. Called once, at start; constructors do no I/O.

    `settings.plugins["<entry point>"]` holds the plugin's own options. Errors disable the plugin.

    Example:
        @hookimpl
        def kaito_node_providers(settings):
            region = settings.plugins.get("my_cloud", {}).get("region", "west")
            return [MyCloud(region)]
    """


@hookspec
def kaito_adapter_sources(settings: Settings) -> Iterable[AdapterSource]:  # type: ignore[empty-body]
    """Return the adapter sources that this plugin brings. Called once, at start.

    Names and schemes are unique across plugins. Errors disable the plugin.

    Example:
        @hookimpl
        def kaito_adapter_sources():
            return [MySource()]
    """


@hookspec
def kaito_validate_workspace(workspace: Workspace, preset: ModelPreset | None) -> Iterable[FieldError]:  # type: ignore[empty-body]
    """Return what is wrong with a Workspace beyond the common rules. Pure; called before each plan.

    `preset` is None where the Workspace brings its own template. An exception is logged with the plugin's name and
    counts as no objection, so that a broken plugin does not lock users out.

    Example:
        @hookimpl
        def kaito_validate_workspace(workspace, preset):
            if preset is not None and preset.license == "llama2" and workspace.namespace == "shop":
                yield FieldError("inference.preset.name", f"'{preset.name}' may not be used in the namespace 'shop'")
    """


@hookspec
def kaito_pod(workspace: Workspace, preset: ModelPreset, pod: Mapping[str, Any]) -> PodChange | None:
    """Return what the pods of a Workspace with a preset take along, or None for nothing. Pure; called before each plan.

    `pod` is what they take along so far, as `inference.pod` writes it: the operator's defaults and the Workspace's own.
    A change counts before both. Mappings and lists of named things are merged by key. What the operator needs itself
    is refused as in a Workspace, and where two plugins say different things of the same field, the Workspace's
    condition names both. A plugin objects by raising `InvalidWorkspaceError`. Any other exception fails the pass of
    this Workspace alone, and its condition names the plugin. Pods are replaced whenever the answer changes, so the
    same arguments must give the same answer.

    Example:
        @hookimpl
        def kaito_pod(workspace, preset, pod):
            return PodChange(labels={"team": workspace.namespace}) if preset.gpus else None
    """


@hookspec(firstresult=True)
def kaito_select_node_provider(
    workspace: Workspace, candidates: Sequence[NodeProvider], node_types: Collection[str]
) -> NodeProvider | None:
    """Return the provider that serves a Workspace, or None to ask the next plugin. The first answer counts.

    Called where neither the Workspace's annotation nor the settings name one. `node_types` are the machine types of the
    nodes that no provider made, in lower case, with "" for nodes that do not say theirs. Errors are logged, and the
    next plugin is called.

    The built-in answer, tried last: for a Workspace without an instance type the provider that creates no nodes, else
    the one that has the type in its table, that finds nodes of it, or that knows it by its name.

    Example:
        @hookimpl
        def kaito_select_node_provider(workspace, candidates):
            named = {provider.name: provider for provider in candidates}
            return named.get("my_cloud") if workspace.namespace == "shop" else None
    """


@hookspec
def kaito_reconciled(workspace: Workspace, outcome: str) -> None:
    """Observe the outcome of a Workspace, each time that it changed and when the Workspace is deleted.

    `outcome` is the state in the status (Pending, Ready, NotReady or Failed), or Deleted. The first pass after a start
    of the operator counts as a change. Called in a thread of its own, one Workspace after another, so that a call that
    blocks delays the other observers alone. Errors are logged and change nothing.

    Example:
        @hookimpl
        def kaito_reconciled(workspace, outcome):
            print(f"{workspace.namespace}/{workspace.name}: {outcome}")
    """
