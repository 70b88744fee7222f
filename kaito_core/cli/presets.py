"""`kaito presets`: what models are installed."""

from typing import Annotated, Any

import typer

from kaito_core.api import ModelPreset
from kaito_core.cli.output import Format, FormatOption, print_records
from kaito_core.cli.session import Session

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


def _record(session: Session, preset: ModelPreset) -> dict[str, Any]:
    return {
        **preset.model_dump(mode="json"),
        "workload": "StatefulSet" if preset.distributed else "Deployment",
        "plugin": session.registry.origin("preset", preset.name),
    }


@app.command("list")
def list_presets(context: typer.Context, output: FormatOption = Format.table) -> None:
    """List the presets, with what each needs."""
    session: Session = context.obj
    presets = sorted(session.registry.presets.values(), key=lambda preset: (preset.family, preset.gpus, preset.name))
    print_records([_record(session, preset) for preset in presets], _COLUMNS, output)


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the preset.")],
    output: FormatOption = Format.yaml,
) -> None:
    """Show one preset whole, with the source of each number."""
    session: Session = context.obj
    print_records([_record(session, session.registry.preset(name))], _COLUMNS, output)
