"""The command `kaito status`: what the operator says of Workspaces, as text that tells what is waited for."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from kaito_core.api import KubeObject
from kaito_core.api.conditions import READY
from kaito_core.api.workspace.model import WORKSPACES
from kaito_core.cli.cluster.connection import KubeconfigOption, on_cluster
from kaito_core.cli.output import ReportFormat, ReportOption, print_data, table_lines
from kaito_core.errors import ConfigError, known_names

__all__ = ["status", "status_text"]

if TYPE_CHECKING:
    from kaito_core.controller.cluster import KubernetesCluster

_POLL_SECONDS = 2.0


def status(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="A Workspace; default: all of them.", show_default=False)
    ] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Its namespace.")] = "default",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Print each change until it is ready.")] = False,
    output: ReportOption = ReportFormat.text,
    kubeconfig: KubeconfigOption = None,
) -> None:
    """Show how Workspaces are doing.

    Each stage with its age, each adapter, and what is waited for. Exit with status 1 if one is not ready.
    """

    async def work(cluster: "KubernetesCluster") -> bool:
        told: str | None = None
        while True:
            found = await _read(cluster, name, namespace)
            if output is not ReportFormat.text:
                print_data([{"name": item["metadata"]["name"], **(item.get("status") or {})} for item in found], output)
            elif (text := "\n\n".join(status_text(item, datetime.now(UTC)) for item in found)) != told:
                print(text or f"no Workspace in namespace '{namespace}'", flush=True)
                told = text
            ready = all(map(_is_ready, found))
            if ready or not watch:
                return ready
            await asyncio.sleep(_POLL_SECONDS)

    raise typer.Exit(0 if on_cluster("kaito status", kubeconfig, work) else 1)


async def _read(cluster: "KubernetesCluster", name: str, namespace: str) -> Sequence[KubeObject]:
    found = await cluster.list(WORKSPACES, namespace)
    chosen = [item for item in found if not name or item["metadata"]["name"] == name]
    if name and not chosen:
        known = known_names([item["metadata"]["name"] for item in found], name)
        raise ConfigError(f"there is no Workspace '{name}' in namespace '{namespace}'; {known}")
    return chosen


def status_text(workspace: KubeObject, now: datetime) -> str:
    """Returns a Workspace's status as text: where it answers, each condition, each adapter.

    Args:
        workspace: The document, as the API server has it.
        now: For the age of each condition.
    """
    metadata, state = workspace["metadata"], workspace.get("status") or {}
    conditions = state.get("conditions") or []
    ready = next((item for item in conditions if item["type"] == READY), None)
    lines = [f"Workspace {metadata['namespace']}/{metadata['name']}: {_summary(workspace, ready)}"]
    if state.get("endpoint"):
        lines.append(f"  answers at {state['endpoint']}")
    if state.get("workerNodes"):
        lines.append(f"  on {', '.join(state['workerNodes'])}")
    lines += _indented(
        [
            [item["type"], item["status"], _age(item.get("lastTransitionTime", ""), now), item["reason"]]
            for item in conditions
        ]
    )
    lines += _indented(
        [
            [f"adapter {item['name']}", f"at {item['strength']:g}", item["state"], item.get("message", "")]
            for item in state.get("adapters") or []
        ]
    )
    if ready is not None and ready["status"] != "True" and ready.get("message"):
        lines.append(f"  {ready['message']}")
    return "\n".join(lines)


def _summary(workspace: KubeObject, ready: KubeObject | None) -> str:
    if workspace["metadata"].get("deletionTimestamp"):
        return "is being deleted"
    if ready is None:
        return "not seen by an operator yet; does one serve its namespace?"
    if ready.get("observedGeneration", 0) < workspace["metadata"].get("generation", 0):
        return "changed, and not looked at since"
    return "ready" if ready["status"] == "True" else f"not ready ({ready['reason']})"


def _is_ready(workspace: KubeObject) -> bool:
    conditions = (workspace.get("status") or {}).get("conditions") or []
    ready = next((item for item in conditions if item["type"] == READY), None)
    return ready is not None and _summary(workspace, ready) == "ready"


def _indented(rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"  {line}" for line in table_lines(rows)]


def _age(since: str, now: datetime) -> str:
    """Returns how long ago a time was, in the largest unit that fits, as kubectl prints it."""
    try:
        seconds = int((now - datetime.fromisoformat(since)).total_seconds())
    except ValueError:
        return ""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{max(0, seconds)}s"
