"""`kaito plugins`: which plugins are installed, what each brings, and what is wrong with it."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from kaito_core.cli.output import (
    ListFormat,
    ListOption,
    RecordFormat,
    RecordOption,
    ReportFormat,
    ReportOption,
    print_data,
    print_list,
)
from kaito_core.cli.session import STRICT_EXIT_STATUS, Session
from kaito_core.errors import ConfigError, known_names
from kaito_core.plugins import PluginInfo, PluginRegistry

__all__ = ["app"]

app = typer.Typer(help="List and check the installed plugins.", no_args_is_help=True)

_COLUMNS = {
    "name": "NAME",
    "origin": "DISTRIBUTION OR FILE",
    "state": "STATE",
    "brings": "BRINGS",
    "error": "ERROR",
}
_WIDE = {"import_ms": "IMPORT (ms)", "module": "MODULE"}


def _record(info: PluginInfo) -> dict[str, Any]:
    named = {kind: list(info.names(kind)) for kind in ("preset", "node provider", "adapter source")}
    brings = [f"{len(names)} {kind}{'s' * (len(names) > 1)}" for kind, names in named.items() if names]
    fields = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(info).items()}
    del fields["records"]
    fields |= dict(zip(("presets", "providers", "sources"), named.values(), strict=True))
    return {**fields, "brings": brings, "import_ms": round(info.import_seconds * 1000, 1)}


def _discover(context: typer.Context) -> PluginRegistry:
    # Not the session's registry, which reports failures on stderr: these commands print them themselves.
    session: Session = context.obj
    return PluginRegistry.discover(session.settings)


def _end_if_strict(context: typer.Context, registry: PluginRegistry) -> None:
    session: Session = context.obj
    if registry.failures and session.settings.strict_plugins:
        raise typer.Exit(STRICT_EXIT_STATUS)


@app.command("list")
def list_plugins(context: typer.Context, output: ListOption = ListFormat.table) -> None:
    """List the plugins, broken and skipped ones too."""
    registry = _discover(context)
    records = [_record(info) for info in registry.plugins]
    if output in (ListFormat.table, ListFormat.wide):
        records = [{**record, "origin": record["distribution"] or record["file"]} for record in records]
    print_list(records, _COLUMNS, _WIDE, output)
    _end_if_strict(context, registry)


@app.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the plugin, as `kaito plugins list` has it.")],
    output: RecordOption = RecordFormat.yaml,
) -> None:
    """Show one plugin in full, with the traceback if it is broken."""
    # Of two with one name the last is shown: it is left out, and its error names the other.
    found = {info.name: info for info in _discover(context).plugins}
    if name not in found:
        raise ConfigError(f"unknown plugin '{name}'; {known_names(found, name)}")
    print_data(_record(found[name]), output)


@app.command()
def doctor(context: typer.Context, output: ReportOption = ReportFormat.text) -> None:
    """Explain what is wrong with broken plugins, and odd about others. Exit with status 1 if one is broken."""
    registry = _discover(context)
    if output is ReportFormat.text:
        for info in registry.plugins:
            _print_diagnosis(info)
        print(f"{len(registry.plugins)} plugins, {len(registry.failures) or 'none'} broken")
    else:
        ill = [info for info in registry.plugins if info.state == "failed" or info.remarks]
        print_data([_record(info) for info in ill], output)
    _end_if_strict(context, registry)
    if registry.failures:
        raise typer.Exit(1)


def _print_diagnosis(info: PluginInfo) -> None:
    origin = f"of {info.distribution} ({info.module})" if info.distribution else f"({info.module})"
    if info.state == "failed":
        print(f"plugin '{info.name}' {origin} is left out\n  {info.error}")
    elif info.remarks:
        print(f"plugin '{info.name}' {origin} works, but")
    for remark in info.remarks:
        print(f"  it {remark}")
    if info.traceback:
        print(f"\n{info.traceback}")
