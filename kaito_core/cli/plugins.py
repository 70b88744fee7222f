"""`kaito plugins`: what is installed, and what is wrong with it."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from kaito_core.cli.output import Format, FormatOption, print_records
from kaito_core.cli.session import STRICT_EXIT_STATUS, Session
from kaito_core.errors import ConfigError, known_names
from kaito_core.plugins import PluginInfo, PluginRegistry

__all__ = ["app"]

app = typer.Typer(help="Installed plugins.", no_args_is_help=True)

_COLUMNS = {
    "name": "NAME",
    "origin": "DISTRIBUTION OR FILE",
    "state": "STATE",
    "brings": "BRINGS",
    "import_ms": "IMPORT (ms)",
    "error": "ERROR",
}


def _record(info: PluginInfo) -> dict[str, Any]:
    named = {kind: list(info.names(kind)) for kind in ("preset", "node provider", "adapter source")}
    brings = [f"{len(names)} {kind}{'s' * (len(names) > 1)}" for kind, names in named.items() if names]
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(info).items()}
    del fields["records"]
    fields |= dict(zip(("presets", "providers", "sources"), named.values(), strict=True))
    return {**fields, "brings": brings, "import_ms": round(info.import_seconds * 1000, 1)}


def _discover(context: typer.Context) -> PluginRegistry:
    # Not the session's registry: these commands show failures themselves, which that one names on stderr.
    session: Session = context.obj
    return PluginRegistry.discover(session.settings)


def _end_if_strict(context: typer.Context, registry: PluginRegistry) -> None:
    session: Session = context.obj
    if registry.failures and session.settings.strict_plugins:
        raise typer.Exit(STRICT_EXIT_STATUS)


@app.command("list")
def list_plugins(context: typer.Context, output: FormatOption = Format.table) -> None:
    """List the plugins, working or not."""
    registry = _discover(context)
    records = [_record(info) for info in registry.plugins]
    if output is Format.table:
        records = [{**record, "origin": record["distribution"] or record["file"]} for record in records]
    print_records(records, _COLUMNS, output)
    _end_if_strict(context, registry)


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the plugin: of its entry point, or of its file.")],
    output: FormatOption = Format.yaml,
) -> None:
    """Show everything that is known of one plugin, with the traceback if it is broken."""
    registry = _discover(context)
    records = [_record(info) for info in registry.plugins if info.name == name]
    if not records:
        known = known_names({info.name for info in registry.plugins}, name)
        raise ConfigError(f"unknown plugin '{name}'; {known}")
    print_records(records, _COLUMNS, output)


@app.command()
def doctor(context: typer.Context, output: FormatOption = Format.table) -> None:
    """Say what is wrong with each broken plugin, and what is odd about others; exit with status 1 if one is broken."""
    registry = _discover(context)
    if output is Format.table:
        for info in registry.plugins:
            _tell(info)
        print(f"{len(registry.plugins)} plugins, {len(registry.failures) or 'none'} broken")
    else:
        ill = [info for info in registry.plugins if info.state == "failed" or info.remarks]
        print_records([_record(info) for info in ill], _COLUMNS, output)
    _end_if_strict(context, registry)
    if registry.failures:
        raise typer.Exit(1)


def _tell(info: PluginInfo) -> None:
    origin = f"of {info.distribution} ({info.module})" if info.distribution else f"({info.module})"
    if info.state == "failed":
        print(f"plugin '{info.name}' {origin} is left out\n  {info.error}")
    elif info.remarks:
        print(f"plugin '{info.name}' {origin} works, but")
    for remark in info.remarks:
        print(f"  it {remark}")
    if info.traceback:
        print(f"\n{info.traceback}")
