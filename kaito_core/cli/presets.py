"""`kaito presets`: what models are installed, and which machines they fit."""

import difflib
import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from kaito_core.api import GpuSku, ModelPreset
from kaito_core.cli.output import Format, FormatOption, print_records
from kaito_core.cli.session import Session
from kaito_core.errors import ConfigError, DoesNotFitError
from kaito_core.reconcile.sizing import Sizing, size

__all__ = ["app"]

app = typer.Typer(help="Models that installed plugins bring.", no_args_is_help=True)

_COLUMNS = {
    "name": "NAME",
    "gpus": "GPUS",
    "gpu_memory_gib": "GPU MEMORY (GiB)",
    "disk_gib": "DISK (GiB)",
    "context_length": "CONTEXT (tokens)",
    "workload": "WORKLOAD",
    "license": "LICENSE",
    "plugin": "PLUGIN",
}
_MOST_NODES = 16  # that one distributed model is looked up on


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
    """Yields each machine type that fits, with the GPUs taken of one and how many machines one replica spans."""
    for provider, sku in session.registry.machines():
        for nodes in range(1, _MOST_NODES + 1 if preset.distributed else 2):
            if sizing := _sizing(preset, nodes, sku):
                yield {"sku": sku.name, "provider": provider, "nodes": nodes, "gpus": sizing.gpus}
                break


def _known_sku(session: Session, name: str) -> GpuSku:
    sku = session.registry.sku(name)
    if sku is None:
        known = sorted(sku.name for _, sku in session.registry.machines())
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"
        raise ConfigError(f"--fits: no installed node provider knows the machine type '{name}' ({hint})")
    return sku


@app.command("list")
def list_presets(context: typer.Context, output: FormatOption = Format.table) -> None:
    """List the presets, with what each needs."""
    session: Session = context.obj
    print_records([_record(session, preset) for preset in _sorted(session)], _COLUMNS, output)


@app.command()
def search(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="Part of a name, family, architecture, repository or licence.")] = "",
    max_gpu_memory: Annotated[
        float | None, typer.Option(metavar="GIB", min=0, help="GPU memory that there is.", show_default=False)
    ] = None,
    cpu: Annotated[bool, typer.Option("--cpu", help="Only what runs without a GPU.")] = False,
    license: Annotated[str, typer.Option(help="Part of the licence's name.", show_default=False)] = "",
    family: Annotated[str, typer.Option(help="Model family, such as llama.", show_default=False)] = "",
    fits: Annotated[
        str, typer.Option(metavar="SKU", help="Machine type of an installed node provider.", show_default=False)
    ] = "",
    nodes: Annotated[int, typer.Option(min=1, help="How many of them, for distributed presets.")] = 1,
    output: FormatOption = Format.table,
) -> None:
    """Find presets; every condition must hold."""
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
    print_records([_record(session, preset) for preset in found], _COLUMNS, output)


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the preset, or ORG/MODEL where such models are allowed.")],
    output: FormatOption = Format.yaml,
) -> None:
    """Show one preset whole: the source of each number, and the machine types that it fits."""
    session: Session = context.obj
    preset = session.registry.preset(name)
    record = _record(session, preset, "" if preset.name == name else "none, made from its config.json")
    if preset.gpus:
        record["fits"] = list(_machines(session, preset))
    print_records([record], _COLUMNS, output)


@app.command()
def schema() -> None:
    """Print the JSON Schema of a preset as a YAML document, for editors."""
    from kaito_core.api.preset.schema import preset_schema

    print(json.dumps(preset_schema(), indent=2))
