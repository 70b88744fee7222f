"""The command line `kaito-runtime`: thin. Arguments are checked before torch, which takes seconds, is imported."""

import logging
from pathlib import Path
from typing import Annotated

import typer
from importlib_metadata import version as distribution_version

from kaito_core.errors import KaitoError
from kaito_runtime.cli.failure import fail
from kaito_runtime.cli.home import writable_home
from kaito_runtime.cli.serve import serve
from kaito_runtime.config import config_schema_text

__all__ = ["app", "main"]

app = typer.Typer(
    help="Serves a language model with many LoRA adapters, each at any strength, over an OpenAI-compatible API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(serve)


@app.command()
def fetch(
    source: Annotated[
        list[str],
        typer.Argument(
            help="https://... (an archive, a folder, or a URL per file), hf://org/name[@revision][/folder], a folder."
        ),
    ],
    to: Annotated[Path, typer.Option(help="Folder to create or replace.", metavar="DIR")],
    digest: Annotated[
        str | None, typer.Option(help="Digest that the adapter's files must have, sha256:...", metavar="DIGEST")
    ] = None,
) -> None:
    """Put an adapter's files into a folder: `kaito-fetch`, as operators of earlier versions call it."""
    from kaito_core.fetch.cli import fetch_from_environment

    try:
        fetch_from_environment(source, to, digest)
    except KaitoError as error:
        fail(error)
    print(f"{to}: {', '.join(sorted(path.name for path in to.iterdir()))}")


@app.command()
def fetch_weights(
    repository: Annotated[str, typer.Option(help="Repository on the Hugging Face hub.", metavar="ORG/NAME")],
    to: Annotated[Path, typer.Option(help="Folder to fill.", metavar="DIR")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "main",
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            help="The folder is on a volume that other pods use too: fetch only if it is not complete, one at a time, "
            "and let it appear as a whole.",
        ),
    ] = False,
) -> None:
    """Download a base model's weights; the token is read from HF_TOKEN."""
    from kaito_runtime.adapters.fetch import FetchError, fetch_model
    from kaito_runtime.adapters.kept_weights import keep_model

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    found = ""
    try:
        if not keep:
            fetch_model(repository, revision, to)
        elif not keep_model(repository, revision, to):
            found = ", as it was found"
    except FetchError as error:
        fail(error)
    print(f"{to}: {repository}@{revision}{found}")


@app.command()
def version() -> None:
    """Print the version."""
    print(distribution_version("kaito-runtime"))


@app.command()
def doctor() -> None:
    """Check the packages that provide recipes; exit with status 1 if one is broken."""
    from kaito_runtime.model.recipes import installed_recipes

    packages = installed_recipes().packages
    for info in packages:
        print(f"{info}: {info.state}{': ' * bool(info.error)}{info.error}")
        for remark in info.remarks:
            print(f"  it {remark}")
        if info.traceback:
            print(f"\n{info.traceback}")
    raise typer.Exit(1 if any(info.state == "failed" for info in packages) else 0)


@app.command()
def config_schema() -> None:
    """Print the JSON schema of the file that `serve --config` reads."""
    print(config_schema_text(), end="")


def main() -> None:
    """Entry point."""
    with writable_home():
        app()
