"""The command `kaito operator`. Its help lists every setting."""

import logging
import textwrap
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kaito_core.cli.cluster.connection import KubeconfigOption, cluster_packages
from kaito_core.cli.session import Session
from kaito_core.errors import KaitoError
from kaito_core.settings import CONFIG_VARIABLE, setting_docs

__all__ = ["operator", "settings_help"]

log = logging.getLogger(__name__)

_WIDTH = 100


class LogFormat(StrEnum):
    """How to log."""

    text = "text"
    json = "json"


def operator(
    context: typer.Context,
    kubeconfig: KubeconfigOption = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file with settings; default: $KAITO_CONFIG.", show_default=False)
    ] = None,
    log_format: Annotated[
        LogFormat | None, typer.Option(help="How to log; default: $KAITO_LOG_FORMAT.", show_default=False)
    ] = None,
) -> None:
    """Run the operator. It watches Workspaces and makes the cluster serve them."""
    with cluster_packages("kaito operator"):
        from kaito_core.controller.app import run_operator, spare_collector
        from kaito_core.controller.logs import configure

    session: Session = context.obj
    session.config = config or session.config
    settings = session.settings
    if log_format is not None:
        settings = settings.model_copy(update={"log_format": log_format.value})
    configure(settings.log_format, settings.log_level)
    session.report = log.error
    try:
        registry = session.registry
        spare_collector()  # what is loaded by now stays until the process ends
        run_operator(settings, registry, kubeconfig=str(kubeconfig) if kubeconfig else None)
    except (KaitoError, OSError) as error:  # logged, so that a log of JSON lines has no line of another form
        log.critical("%s", error)
        raise typer.Exit(1) from None
    except Exception:
        log.critical("the operator has failed", exc_info=True)
        raise typer.Exit(1) from None


def settings_help() -> str:
    """Returns the part of `kaito operator --help` about settings: variable, type, default and meaning of each."""
    blocks = [
        f"Settings come from the environment, and from the YAML file that --config or {CONFIG_VARIABLE} names. The "
        "environment wins. Keys of the file are the names below in lower case, without KAITO_."
    ]
    for doc in setting_docs():
        default = f"; default {doc.default}" if doc.default else ""
        meaning = textwrap.wrap(doc.meaning, _WIDTH - 4)
        # click does not wrap a paragraph that begins with "\b".
        blocks.append("\n".join(["\b", f"{doc.variable}  ({doc.kind}{default})", *(f"    {line}" for line in meaning)]))
    return "\n\n".join(blocks)
