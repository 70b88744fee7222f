"""`kaito presets`: the models that can be served, and which machines they fit."""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from kaito_core.api import GpuSku, ModelPreset
from kaito_core.cli.output import ListFormat, ListOption, RecordFormat, RecordOption, print_data, print_list
from kaito_core.cli.session import Session
from kaito_core.errors import ConfigError, DoesNotFitError, UnknownPresetError, known_names
from kaito_core.reconcile.nodes.sizing import Sizing, size

__all__ = ["app"]

app = typer.Typer(help="List and search the models that can be served.", no_args_is_help=True)

_COLUMNS = {
    "name": "NAME",
    "gpus": "GPUS",
    "gpu_memory_gib": "GPU GiB",
    "disk_gib": "DISK GiB",
    "context_length": "CONTEXT",
    "plugin": "PLUGIN",
}
_WIDE = {"license": "LICENSE", "workload": "WORKLOAD"}
_MOST_NODES = 16  # nodes that are tried for one distributed preset


def _record(session: Session, preset: ModelPreset, plugin: str = "") -> dict[str, Any]:
    return {
        **preset.model_dump(mode="json"),
        "workload": "StatefulSet" if preset.distributed else "Deployment",
        "plugin": plugin or session.registry.origin("preset", preset.name),
    }


def _sorted(session: Session) -> list[ModelPreset]:
    return sorted(session.registry.presets.values(), key=lambda preset: (preset.family, preset.gpus, preset.name))


def _sizing(preset: ModelPreset, nodes: int, sku: GpuSku) -> Sizing | None:
    try:
        return size(preset, nodes, sku)
    except DoesNotFitError:
        return None


def _machines(session: Session, preset: ModelPreset) -> Iterator[dict[str, Any]]:
    """Yields each machine type that fits, with the machines that one replica needs and the GPUs it uses of each."""
    for provider, sku in session.registry.machines():
        for nodes in range(1, _MOST_NODES + 1 if preset.distributed else 2):
            if sizing := _sizing(preset, nodes, sku):
                yield {"sku": sku.name, "provider": provider, "nodes": nodes, "gpus": sizing.gpus}
                break


def _known_sku(session: Session, name: str) -> GpuSku:
    sku = session.registry.sku(name)
    if sku is None:
        known = known_names((sku.name for _, sku in session.registry.machines()), name)
        raise ConfigError(f"--fits: unknown machine type '{name}'; {known}")
    return sku


@app.command("list")
def list_presets(context: typer.Context, output: ListOption = ListFormat.table) -> None:
    """List the presets, with what each needs."""
    session: Session = context.obj
    print_list([_record(session, preset) for preset in _sorted(session)], _COLUMNS, _WIDE, output)


@app.command()
def search(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="Part of a name, family, architecture, repository or licence.")] = "",
    max_gpu_memory: Annotated[
        float | None,
        typer.Option(
            metavar="GIB", min=0, help="Only presets that need at most this much GPU memory.", show_default=False
        ),
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Only presets that run without a GPU.")] = False,
    license: Annotated[
        str, typer.Option(help="Only presets whose licence has this in its name.", show_default=False)
    ] = "",
    family: Annotated[
        str, typer.Option(help="Only presets of this model family, such as llama.", show_default=False)
    ] = "",
    fits: Annotated[
        str, typer.Option(metavar="SKU", help="Only presets that fit this machine type.", show_default=False)
    ] = "",
    nodes: Annotated[int, typer.Option(min=1, help="Machines of the type, for distributed presets.")] = 1,
    output: ListOption = ListFormat.table,
) -> None:
    """List the presets that meet all conditions."""
    session: Session = context.obj
    sku = _known_sku(session, fits) if fits else None

    def matches(preset: ModelPreset) -> bool:
        words = (preset.name, preset.family, preset.architecture, preset.weights.repository, preset.license)
        return (
            any(text.lower() in word.lower() for word in words)
            and (max_gpu_memory is None or preset.gpu_memory_gib <= max_gpu_memory)
            and not (cpu and preset.gpus)
            and license.lower() in preset.license.lower()
            and family.lower() in ("", preset.family.lower())
            and (sku is None or _sizing(preset, nodes, sku) is not None)
        )

    found = [preset for preset in _sorted(session) if matches(preset)]
    print_list([_record(session, preset) for preset in found], _COLUMNS, _WIDE, output)


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the preset, or ORG/MODEL where such models are allowed.")],
    output: RecordOption = RecordFormat.yaml,
) -> None:
    """Show one preset in full. The source of each number and the machine types that it fits are included."""
    session: Session = context.obj
    try:
        preset = session.registry.preset(name)
    except UnknownPresetError as error:  # its message is about a field of a Workspace
        raise ConfigError(f"unknown preset '{name}'; {known_names(session.registry.presets, name)}") from error
    record = _record(session, preset, "" if preset.name == name else "none, made from its config.json")
    if preset.gpus:
        record["fits"] = list(_machines(session, preset))
    print_data(record, output)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a preset as a YAML document, for editors."""
    from kaito_core.api.preset.schema import preset_schema

    print(json.dumps(preset_schema(), indent=2))
