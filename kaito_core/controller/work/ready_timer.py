"""Measures how long new Workspaces take until their nodes, their server and they themselves are ready."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from kaito_core.api import KubeObject
from kaito_core.api.conditions import INFERENCE_READY, RESOURCE_READY, WORKSPACE_SUCCEEDED
from kaito_core.controller.records import Key

__all__ = ["STAGES", "ReadyTimer"]

#: The condition that ends each stage.
STAGES = {"nodes": RESOURCE_READY, "server": INFERENCE_READY, "ready": WORKSPACE_SUCCEEDED}


@dataclass(slots=True)
class _Start:
    uid: str
    at: float
    left: set[str] = field(default_factory=lambda: set(STAGES))


class ReadyTimer:
    """Measures each Workspace once, from its first pass on: the API server's clock may differ from ours.

    Args:
        observe: Called with the name of a stage and the seconds until its end.
        clock: Monotonic seconds.
    """

    def __init__(self, observe: Callable[[str, float], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._observe, self._clock = observe, clock
        self._starts: dict[Key, _Start] = {}

    def begin(self, key: Key, document: KubeObject) -> None:
        """Starts to measure a Workspace without a status; others have been looked at before and are not measured."""
        uid = str(document["metadata"].get("uid", ""))
        known = self._starts.get(key)
        if not document.get("status") and (known is None or known.uid != uid):
            self._starts[key] = _Start(uid, self._clock())

    def reach(self, key: Key, conditions: Iterable[dict[str, Any]]) -> None:
        """Reports the stages whose condition is true now, each once."""
        start = self._starts.get(key)
        if start is None:
            return
        true = {item["type"] for item in conditions if item["status"] == "True"}
        for stage in [stage for stage in STAGES if stage in start.left and STAGES[stage] in true]:
            start.left.discard(stage)
            self._observe(stage, self._clock() - start.at)
        if not start.left:
            self.forget(key)

    def forget(self, key: Key) -> None:
        """Forgets a Workspace."""
        self._starts.pop(key, None)
