"""`kaito plugins`: what is installed, and what is wrong with it."""

from dataclasses import asdict
from typing import Any

import typer

from kaito_core.cli.output import Format, FormatOption, print_records
from kaito_core.cli.session import Session
from kaito_core.plugins import PluginInfo, PluginRegistry

__all__ = ["app"]

app = typer.Typer(help="Installed plugins.", no_args_is_help=True)

_COLUMNS = {
    "name": "NAME",
    "distribution": "DISTRIBUTION",
    "state": "STATE",
    "brings": "BRINGS",
    "import_ms": "IMPORT (ms)",
    "error": "ERROR",
}


def _record(info: PluginInfo) -> dict[str, Any]:
    counted = {"presets": info.presets, "node providers": info.providers, "adapter sources": info.sources}
    brings = [f"{len(names)} {kind}" for kind, names in counted.items() if names]
    return {**asdict(info), "brings": brings, "import_ms": round(info.import_seconds * 1000, 1)}


@app.command("list")
def list_plugins(context: typer.Context, output: FormatOption = Format.table) -> None:
    """List the plugins, working or not."""
    session: Session = context.obj
    # Failures stand in the table: they are not named on stderr as well, unless plugins are strict.
    strict = session.settings.strict_plugins
    registry = session.registry if strict else PluginRegistry.discover(session.settings)
    print_records([_record(info) for info in registry.plugins], _COLUMNS, output)


@app.command()
def doctor(context: typer.Context) -> None:
    """Say what is wrong with each broken plugin; exit with status 1 if there is any."""
    session: Session = context.obj
    registry = PluginRegistry.discover(session.settings)
    for failure in registry.failures:
        print(f"plugin '{failure.name}' of {failure.distribution or 'unknown origin'} ({failure.module})")
        print(f"  {failure.error}\n")
        print(failure.traceback)
    if registry.failures:
        raise typer.Exit(1)
    print(f"{len(registry.plugins)} plugins, none is broken")
