"""What the commands that work on a cluster share: the option that names it, their packages, and the connection."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from kaito_core.controller.cluster import KubernetesCluster

__all__ = ["KubeconfigOption", "cluster_packages", "on_cluster"]

KubeconfigOption = Annotated[
    Path | None, typer.Option(help="Cluster to work on; default: the one that kubectl uses.", show_default=False)
]
T = TypeVar("T")

_TIMEOUT_SECONDS = 20.0


@contextmanager
def cluster_packages(command: str) -> Iterator[None]:
    """Imports within it may need the extra packages of the operator; where one is missing, says what to install."""
    _have_a_home()
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "kaito_core").split(".")[0]
        if missing == "kaito_core":
            raise
        typer.echo(
            f"error: {command} needs the package '{missing}', which is not installed: "
            "pip install 'kaito-core[operator]'",
            err=True,
        )
        raise typer.Exit(2) from None


def on_cluster(command: str, kubeconfig: Path | None, work: "Callable[[KubernetesCluster], Awaitable[T]]") -> T:
    """Returns what `work` returns when it is given the cluster.

    Args:
        command: The command, for the message about a missing package.
        kubeconfig: File that names the cluster; None for the one that kubectl uses.
        work: What to do with the cluster.

    Raises:
        ConfigError: No cluster is configured.
        ClusterError: The cluster does not answer, or refuses.
    """
    with cluster_packages(command):
        from kaito_core.controller.cluster import connect
        from kaito_core.controller.watch.cache import Cache

    async def connected() -> T:
        path = None if kubeconfig is None else str(kubeconfig)
        async with await connect(Cache(()), (), path, _TIMEOUT_SECONDS) as cluster:
            return await work(cluster)

    return asyncio.run(connected())


def _have_a_home() -> None:
    """Sets HOME for a user without a passwd entry: the Kubernetes client cannot be imported without a home."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"  # as container runtimes do
