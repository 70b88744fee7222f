"""The command `kaito chat`."""

from typing import Annotated

import typer

from kaito_core.cli.pairs import parse_pairs

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
        str, typer.Option("--prompt", "-p", help="Ask this and exit instead of chatting.", show_default=False)
    ] = "",
) -> None:
    """Chat with a served model. Ctrl-C ends an answer, Ctrl-D the chat."""
    from kaito_core.local.chat import chat as converse

    adapters = None if adapter is None else parse_pairs("--adapter", "NAME=STRENGTH", adapter)
    converse(url, model, adapters, prompt)
