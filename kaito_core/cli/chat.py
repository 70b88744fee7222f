"""The command `kaito chat`."""

import sys
from typing import Annotated

import typer

from kaito_core.cli.pairs import parse_pairs
from kaito_core.errors import ConfigError

__all__ = ["chat"]


def chat(
    url: Annotated[str, typer.Option(help="Where the model is served.")] = "http://127.0.0.1:5000",
    model: Annotated[
        str, typer.Option(help="Model id; default: the server's first, a Workspace's own mix.", show_default=False)
    ] = "",
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=STRENGTH",
            help="Adapters for this chat instead of the model's. Can be repeated.",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str,
        typer.Option(
            "--prompt",
            "-p",
            help="Ask this and exit instead of chatting; what is piped in is added, and - asks that alone.",
            show_default=False,
        ),
    ] = "",
    api_key: Annotated[
        str,
        typer.Option(envvar="OPENAI_API_KEY", help="Key of a server that requires one.", show_default=False),
    ] = "",
) -> None:
    """Chat with a served model. Ctrl-C ends an answer, Ctrl-D the chat."""
    from kaito_core.local.chat import chat as converse

    adapters = None if adapter is None else parse_pairs("--adapter", "NAME=STRENGTH", adapter)
    converse(url, model, adapters, _with_input(prompt) if prompt else "", api_key=api_key)


def _with_input(prompt: str) -> str:
    """Returns the prompt and what is piped in."""
    piped = "" if sys.stdin.isatty() else sys.stdin.read().strip()
    parts = ["" if prompt == "-" else prompt, piped]
    if not any(parts):
        raise ConfigError("--prompt: standard input is empty, and - asks for what is piped in")
    return "\n\n".join(part for part in parts if part)
