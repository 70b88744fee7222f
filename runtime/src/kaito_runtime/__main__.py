"""The command line: `kaito-runtime serve`, `fetch`, `fetch-weights`. Thin; imports torch once arguments are good."""

import logging
import os
import signal
import sys
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from kaito_core.api.serving import ADAPTERS_PATH, PORT
from kaito_runtime.config import ConfigError, config_from_flags, config_schema_text, read_config
from kaito_runtime.errors import ServeError

__all__ = ["app", "main"]

app = typer.Typer(
    help="Serves one language model with many LoRA adapters, each at any strength, over an OpenAI-compatible API.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _fail(error: object) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise typer.Exit(1)


@app.command()
def serve(
    model: Annotated[Path, typer.Option(help="Folder of a Hugging Face model, or a GGUF file.", metavar="DIR_OR_GGUF")],
    config: Annotated[
        Path | None,
        typer.Option(help="Serving configuration (JSON), applied again whenever it changes.", metavar="FILE"),
    ] = None,
    adapters_dir: Annotated[
        Path, typer.Option(help="Folder with one folder per adapter of the configuration.", metavar="DIR")
    ] = Path(ADAPTERS_PATH),
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="Without --config: an adapter, its folder and its strength. Repeat it.", metavar="NAME=DIR[@STRENGTH]"
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Without --config: model id of all adapters together.", metavar="ID")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Without --config: auto, bfloat16, float16 or float32.", metavar="TYPE")
    ] = "auto",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all.", rich_help_panel="Server")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, rich_help_panel="Server", help="Port to listen on; 0 for any that is free.")
    ] = PORT,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the bearer token that requests must carry.", rich_help_panel="Server", metavar="FILE"
        ),
    ] = None,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="How long requests may run on after SIGTERM.", rich_help_panel="Server")
    ] = 30.0,
    request_seconds: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Longest time of a request, waiting included; then it ends with 408. No limit if not given.",
            rich_help_panel="Server",
        ),
    ] = None,
    max_waiting: Annotated[
        int, typer.Option(min=0, help="Requests that may wait; more get 429.", rich_help_panel="Batching")
    ] = 256,
    batch_requests: Annotated[
        int, typer.Option(min=1, help="Most requests in one forward pass.", rich_help_panel="Batching")
    ] = 64,
    step_tokens: Annotated[
        int, typer.Option(min=16, help="Most tokens in one forward pass.", rich_help_panel="Batching")
    ] = 512,
    cache_gib: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Key-value cache; if not given 1 on a CPU, 85% of what is free on a GPU.",
            rich_help_panel="Batching",
        ),
    ] = None,
    pack_weights: Annotated[
        bool,
        typer.Option(
            "--pack-weights",
            help="On a CPU in float32: twice the memory for the weights, batches up to a third faster.",
            rich_help_panel="Batching",
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Serve a model and its adapters.

    Example: kaito-runtime serve --model ./smollm2 --adapter pirate=./pirate@0.8

    It serves the model ids "smollm2" (every adapter at its strength), "base" and "pirate".
    """
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # a log has no use for progress bars
    for noisy in ("transformers", "httpx", "asyncio", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Process 1 of a container ignores signals that it does not handle, and loading a model takes minutes.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _fail("WORLD_SIZE is above 1: tensor parallel serving is not there yet; start one process")
    try:
        if config is not None and (adapter or name):
            raise ConfigError("--adapter and --name go without --config: the file says both")
        if not model.exists():
            raise ConfigError(f"--model: '{model}' does not exist")
        serving = (
            read_config(config)
            if config is not None
            else config_from_flags(model, name=name, adapters=adapter or [], dtype=dtype)
        )
        api_key = None if api_key_file is None else _read_key(api_key_file)

        from kaito_runtime.server import ServeOptions
        from kaito_runtime.server import serve as run

        run(
            serving,
            ServeOptions(
                model=model,
                host=host,
                port=port,
                adapters_dir=adapters_dir,
                config_file=config,
                api_key=api_key,
                cache_gib=cache_gib,
                step_tokens=step_tokens,
                batch_requests=batch_requests,
                max_waiting=max_waiting,
                drain_seconds=drain_seconds,
                pack_weights=pack_weights,
                request_seconds=request_seconds,
            ),
        )
    except ServeError as error:
        _fail(error)


@app.command()
def fetch(
    source: Annotated[
        list[str],
        typer.Argument(
            help="https://... (an archive, a folder, or several files), hf://org/name[@revision][/folder], or a folder."
        ),
    ],
    to: Annotated[Path, typer.Option(help="Folder to make; it is replaced as a whole.", metavar="DIR")],
    digest: Annotated[
        str | None, typer.Option(help="sha256:... that the adapter's files must have.", metavar="DIGEST")
    ] = None,
) -> None:
    """Put an adapter's files into a folder."""
    from kaito_runtime.fetch import FetchError, fetch_adapter

    try:
        fetch_adapter(source, to, digest)
    except FetchError as error:
        _fail(error)
    print(f"{to}: {', '.join(sorted(path.name for path in to.iterdir()))}")


@app.command()
def fetch_weights(
    repository: Annotated[str, typer.Option(help="Repository on the Hugging Face hub.", metavar="ORG/NAME")],
    to: Annotated[Path, typer.Option(help="Folder to fill.", metavar="DIR")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "main",
) -> None:
    """Download a base model's weights; the token is read from HF_TOKEN."""
    from kaito_runtime.fetch import FetchError, fetch_model

    try:
        fetch_model(repository, revision, to)
    except FetchError as error:
        _fail(error)
    print(f"{to}: {repository}@{revision}")


@app.command()
def version() -> None:
    """Print the version."""
    print(distribution_version("kaito-runtime"))


@app.command()
def config_schema() -> None:
    """Print the JSON schema of the file that `serve --config` reads."""
    print(config_schema_text(), end="")


def _read_key(path: Path) -> str:
    try:
        key = path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"--api-key-file: {path}: {error.strerror or error}") from error
    if not key:
        raise ConfigError(f"--api-key-file: {path} is empty")
    return key


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
