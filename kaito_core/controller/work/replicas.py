"""What each ready pod reports to have applied. Pods are asked only while their report can still change."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import httpx

from kaito_core.api import KubeObject, Workspace
from kaito_core.api.serving import PORT
from kaito_core.controller.records import Key
from kaito_core.reconcile.objects.podspec import RUNTIME_CONTAINER
from kaito_core.reconcile.observed import AdapterReport, is_ready

__all__ = ["Ask", "Replicas", "ask_over_http", "is_settled", "parse_report"]

log = logging.getLogger(__name__)

Ask = Callable[[KubeObject], Awaitable[AdapterReport | None]]

_TIMEOUT_SECONDS = 2.0


def parse_report(answer: Mapping[str, Any]) -> AdapterReport:
    """Returns the report in the response of a replica to GET /v1/adapters.

    Raises:
        KeyError, TypeError, ValueError: It has another form.
    """
    rows = [
        {
            "name": str(row["name"]),
            "strength": float(row["strength"]),
            "digest": str(row.get("digest") or ""),
            "state": str(row["state"]),
            "message": str(row.get("message") or ""),
        }
        for row in answer["data"]
    ]
    return AdapterReport(int(answer["generation"]), tuple(rows))


async def ask_over_http(pod: KubeObject) -> AdapterReport | None:
    """Returns the report of a pod, None where it does not answer."""
    address = pod.get("status", {}).get("podIP", "")
    if not address:
        return None
    host = f"[{address}]" if ":" in address else address
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False, verify=False) as client:
            answer = await client.get(f"http://{host}:{PORT}/v1/adapters")
            return parse_report(answer.raise_for_status().json())
    except (httpx.HTTPError, KeyError, TypeError, ValueError) as error:
        log.debug("pod %s reports no adapters: %r", pod["metadata"]["name"], error)
        return None


def is_settled(report: AdapterReport, workspace: Workspace) -> bool:
    """Returns whether a replica has applied everything in the Workspace, so that it need not be asked again."""
    ready = {row["name"]: row["strength"] for row in report.adapters if row["state"] == "Ready"}
    wanted = {adapter.name: adapter.strength for adapter in workspace.inference.adapters}
    return report.generation == workspace.generation and ready == wanted


def _incarnation(pod: KubeObject) -> tuple[str, str]:
    """Returns a value that changes when the runtime of a pod starts again."""
    statuses = pod.get("status", {}).get("containerStatuses") or ()
    runtime: KubeObject = next((status for status in statuses if status.get("name") == RUNTIME_CONTAINER), {})
    return str(pod["metadata"].get("uid", "")), f"{runtime.get('containerID', '')}/{runtime.get('restartCount', 0)}"


class Replicas:
    """Remembers the reports of replicas.

    Args:
        ask: Asks one pod.
    """

    def __init__(self, ask: Ask = ask_over_http) -> None:
        self._ask = ask
        self._known: dict[Key, dict[tuple[str, str], AdapterReport]] = {}

    async def reports(self, workspace: Workspace, pods: Sequence[KubeObject]) -> dict[str, AdapterReport]:
        """Returns the reports of the ready pods, by name; asks only those whose report can change."""
        key = (workspace.namespace, workspace.name)
        known = self._known.get(key, {})
        ready = {_incarnation(pod): pod for pod in pods if is_ready(pod)}
        unsettled = [who for who in ready if who not in known or not is_settled(known[who], workspace)]
        answers = await asyncio.gather(*(self._ask(ready[who]) for who in unsettled))
        reports = {who: report for who, report in known.items() if who in ready and who not in unsettled}
        reports |= {who: answer for who, answer in zip(unsettled, answers, strict=True) if answer is not None}
        self._known[key] = reports
        return {ready[who]["metadata"]["name"]: report for who, report in reports.items()}

    def forget(self, key: Key) -> None:
        """Forgets a Workspace."""
        self._known.pop(key, None)
