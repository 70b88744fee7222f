"""`kaito-runtime serve`: its options, and what is checked before the model loads."""

import logging
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kaito_core.api.quantity import parse_bytes
from kaito_core.api.serving import ADAPTERS_PATH, PORT
from kaito_runtime.cli.failure import fail
from kaito_runtime.config import ConfigError, ConfigFile, config_from_flags
from kaito_runtime.errors import ServeError
from kaito_runtime.keys import ApiKeys

__all__ = ["Device", "Quantization", "serve"]


class Device(StrEnum):
    """Where the model is computed."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class Quantization(StrEnum):
    """`kaito_core.api.preset.quantization.QUANTIZATIONS`."""

    AUTO = "auto"
    BITSANDBYTES_4BIT = "bitsandbytes-4bit"
    BITSANDBYTES_8BIT = "bitsandbytes-8bit"


# Panels of `serve --help`, in their order.
_WHAT, _WHO, _LIMITS, _SPEED = "What is served", "Where, and to whom", "Limits", "Speed and memory"


def serve(
    model: Annotated[
        Path,
        typer.Option(
            help="Folder of a Hugging Face model (safetensors), or a GGUF file.",
            metavar="DIR_OR_GGUF",
            rich_help_panel=_WHAT,
        ),
    ],
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            help="An adapter: its name, its folder, and its strength if that is not 1. May be repeated.",
            metavar="NAME=DIR[@STRENGTH]",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Model id of all adapters together; if not given, derived from the path.",
            metavar="ID",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="auto, bfloat16, float16 or float32.", metavar="TYPE", rich_help_panel=_WHAT),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Instead of the three above: a JSON file with all of it and with blends, applied again whenever it "
            "changes. `kaito-runtime config-schema` prints its schema.",
            metavar="FILE",
            rich_help_panel=_WHAT,
        ),
    ] = None,
    adapters_dir: Annotated[
        Path,
        typer.Option(
            help="Folder with one folder per adapter, for --config and for adapters that are loaded by request.",
            metavar="DIR",
            rich_help_panel=_WHAT,
        ),
    ] = Path(ADAPTERS_PATH),
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all.", metavar="ADDRESS", rich_help_panel=_WHO)
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="Port to listen on; 0 for any that is free.", metavar="PORT", rich_help_panel=_WHO
        ),
    ] = PORT,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the bearer token that requests must carry, or with lines NAME: TOKEN, or a folder with a "
            "file per token, as a mounted Secret; read again when it changes. Probes and the page need none.",
            metavar="FILE_OR_DIR",
            rich_help_panel=_WHO,
        ),
    ] = None,
    key_requests: Annotated[
        int | None,
        typer.Option(
            "--key-requests-per-minute",
            min=1,
            help="Most requests of an API key in a minute; more get 429. If not given, there is no limit.",
            metavar="N",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    key_tokens: Annotated[
        int | None,
        typer.Option(
            "--key-tokens-per-minute",
            min=1,
            help="Most tokens of an API key in a minute, of prompts and answers; then requests get 429.",
            metavar="N",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    admin_token_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the bearer token for loading and unloading adapters by request; without it that is off.",
            metavar="FILE",
            rich_help_panel=_WHO,
        ),
    ] = None,
    chat_template: Annotated[
        Path | None,
        typer.Option(help="File with a chat template, instead of the model's.", metavar="FILE", rich_help_panel=_WHAT),
    ] = None,
    model_defaults: Annotated[
        bool,
        typer.Option(
            help="Give requests that say nothing about it the sampling of the model's generation_config.json.",
            rich_help_panel=_WHAT,
        ),
    ] = True,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin of pages that may call the server from a browser, such as https://chat.example; * for all. "
            "May be repeated.",
            metavar="ORIGIN",
            rich_help_panel=_WHO,
        ),
    ] = None,
    open_status: Annotated[
        bool,
        typer.Option(
            "--open-status",
            help="Let /v1/adapters and /metrics be read without the API key, as the operator and monitoring do.",
            rich_help_panel=_WHO,
        ),
    ] = False,
    max_waiting: Annotated[
        int, typer.Option(min=0, help="Most requests that wait; more get 429.", metavar="N", rich_help_panel=_LIMITS)
    ] = 256,
    request_seconds: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="Time limit of a request, waiting included; then it ends with 408. If not given, there is none.",
            metavar="SECONDS",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    drain_seconds: Annotated[
        float,
        typer.Option(
            min=0,
            help="How long running requests may go on after SIGTERM; new ones get 503.",
            metavar="SECONDS",
            rich_help_panel=_LIMITS,
        ),
    ] = 30.0,
    quantization: Annotated[
        Quantization | None,
        typer.Option(
            help="bitsandbytes-4bit or bitsandbytes-8bit quantise the weights while they are loaded, with the package "
            "bitsandbytes; auto takes them as the files have them, which may be quantised.",
            metavar="METHOD",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    device: Annotated[
        Device,
        typer.Option(
            help="cuda ends the process with the driver's words where no GPU works; auto then serves on the CPU, "
            "unless the container was given a GPU.",
            metavar="auto|cpu|cuda",
            rich_help_panel=_SPEED,
        ),
    ] = Device.AUTO,
    batch_requests: Annotated[
        int, typer.Option(min=1, help="Most requests in one forward pass.", metavar="N", rich_help_panel=_SPEED)
    ] = 64,
    step_tokens: Annotated[
        int, typer.Option(min=16, help="Most tokens in one forward pass.", metavar="N", rich_help_panel=_SPEED)
    ] = 512,
    cache_gib: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Memory for keys and values; if not given, 1 on a CPU, and on a GPU what everything else leaves.",
            metavar="GIB",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    adapter_memory: Annotated[
        str | None,
        typer.Option(
            help="Memory for the adapters that are in use at once, such as 2Gi or 500Mi, on each GPU; the others wait "
            "in main memory. If not given, one of rank 64 or more, as many as fit beside the cache.",
            metavar="SIZE",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    max_adapter_rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Refuse adapters of a larger rank, and have room for this one. If not given, any that fits.",
            metavar="N",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    reuse_prefixes: Annotated[
        bool,
        typer.Option(
            "--reuse-prefixes",
            help="Reuse keys and values of prompts that begin alike, under equal adapters and strengths; answers may "
            "differ in the last bit.",
            rich_help_panel=_SPEED,
        ),
    ] = False,
    pack_weights: Annotated[
        bool | None,
        typer.Option(
            help="On a CPU in float32, keep a second copy of the weights: batches take down to half the time. If not "
            "given, where that takes at most a quarter of the free memory.",
            rich_help_panel=_SPEED,
        ),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Serve a model and its adapters.

    Example: kaito-runtime serve --model ./smollm2 --adapter pirate=./pirate@0.8 --adapter brief=./brief

    It serves the model ids "smollm2" (every adapter at its strength), "base" (none), "pirate" and "brief" at
    http://127.0.0.1:5000. Open that in a browser, or use it as the base URL of any OpenAI client.
    """
    logging.basicConfig(level=logging.DEBUG if verbose else logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # no progress bars in a log file
    for noisy in ("transformers", "httpx", "asyncio", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Process 1 of a container ignores signals without a handler, and loading a model takes minutes. The handler does
    # not raise: an exception inside a library's callback may be swallowed.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    try:
        if config is not None and (adapter or name or dtype):
            raise ConfigError("--adapter, --name and --dtype cannot be combined with --config: the file has all three")
        if not model.exists():
            raise ConfigError(f"--model: '{model}' does not exist")
        config_file = None if config is None else ConfigFile(config)
        serving = config_file.read() if config_file is not None else None
        if serving is None:
            serving = config_from_flags(model, name=name, adapters=adapter or [], dtype=dtype or "auto")
        api_keys = None if api_key_file is None else _read_keys(api_key_file)
        if api_keys is None and (key_requests or key_tokens):
            raise ConfigError("limits of API keys need --api-key-file")
        admin_token = None if admin_token_file is None else _read_key(admin_token_file, "--admin-token-file")
        if admin_token is not None and api_keys is not None and api_keys.has(admin_token):
            raise ConfigError("--admin-token-file must not have the API key in it: users must not change adapters")

        template = None if chat_template is None else _read_template(chat_template)

        from kaito_runtime.options import ServeOptions
        from kaito_runtime.serve import serve as run

        run(
            serving,
            ServeOptions(
                model=model,
                host=host,
                port=port,
                adapters_dir=adapters_dir,
                api_keys=api_keys,
                key_requests=key_requests,
                key_tokens=key_tokens,
                admin_token=admin_token,
                quantization=None if quantization is None else quantization.value,
                device=device.value,
                open_status=open_status,
                cache_gib=cache_gib,
                adapter_bytes=None if adapter_memory is None else _size(adapter_memory, "--adapter-memory"),
                max_adapter_rank=max_adapter_rank,
                step_tokens=step_tokens,
                batch_requests=batch_requests,
                max_waiting=max_waiting,
                drain_seconds=drain_seconds,
                pack_weights=pack_weights,
                reuse_prefixes=reuse_prefixes,
                chat_template=template,
                model_defaults=model_defaults,
                cors_origins=tuple(cors_origin or ()),
                request_seconds=request_seconds,
            ),
            config_file,
        )
    except ServeError as error:
        fail(error)


def _read_keys(path: Path) -> ApiKeys:
    try:
        return ApiKeys.read(path)
    except ServeError as error:
        raise ConfigError(f"--api-key-file: {error}") from error


def _size(text: str, option: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from error


def _read_key(path: Path, option: str) -> str:
    try:
        key = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}: {path}: {getattr(error, 'strerror', None) or error}") from error
    if not key:
        raise ConfigError(f"{option}: {path} is empty")
    return key


def _read_template(path: Path) -> str:
    try:
        template = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--chat-template: {path}: {getattr(error, 'strerror', None) or error}") from error
    if not template.strip():
        raise ConfigError(f"--chat-template: {path} is empty")
    return template
