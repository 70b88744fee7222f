"""The commands by name. Each has a small module, which imports what is slow only when the command runs."""

from pathlib import Path
from typing import Annotated

import typer

from kaito_core.cli import adapter, plugins, presets
from kaito_core.cli.chat import chat
from kaito_core.cli.cluster import operator
from kaito_core.cli.cluster.install import crd, install, uninstall
from kaito_core.cli.cluster.status import status
from kaito_core.cli.new import new
from kaito_core.cli.session import Session
from kaito_core.cli.workspaces import render, up, validate

__all__ = ["app"]

app = typer.Typer(
    name="kaito",
    help="Serve language models with LoRA adapters at exact strengths: on Kubernetes, or on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from kaito_core import __version__

        typer.echo(f"kaito {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    strict_plugins: Annotated[
        bool, typer.Option("--strict-plugins", help="Exit with status 2 if a plugin is broken.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings; default: $KAITO_CONFIG.", show_default=False)
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    context.obj = Session(strict_plugins=strict_plugins, config=config)


app.add_typer(adapter.app, name="adapter")
app.add_typer(presets.app, name="presets")
app.add_typer(plugins.app, name="plugins")
for command in (up, chat, validate, render, status, install, uninstall, crd, new):
    app.command()(command)
app.command(epilog=operator.settings_help())(operator.operator)
