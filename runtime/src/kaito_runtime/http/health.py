"""Health: whether this process should live, and whether it should get requests."""

from dataclasses import dataclass

from kaito_runtime.adapters.manager import Residents
from kaito_runtime.engine.protocol import Engine

__all__ = ["Health"]

_FAILURES_THAT_COUNT = 2  # one bad request must not take the server out of service


@dataclass(slots=True)
class Health:
    """Answers probes.

    Attributes:
        warm: A first answer went through the engine.
        draining: The process is about to end and takes no more requests.
        complete: Every adapter of the start has been loaded or has failed. One that is added later keeps nobody
            waiting: requests for it are answered 404 until it is there, and all others are served.
    """

    engine: Engine
    residents: Residents
    warm: bool = False
    draining: bool = False
    complete: bool = False

    def why_dead(self) -> str:
        """Returns why the process should be restarted, or ""."""
        return "" if self.engine.alive else "the engine has stopped"

    def why_not_ready(self) -> str:
        """Returns why requests should go elsewhere, or "". An adapter that failed is no reason: the others serve."""
        if self.draining:
            return "the server is stopping"
        if dead := self.why_dead():
            return dead
        self.complete = self.complete or self.residents.settled
        if not self.complete:
            return "adapters are being loaded"
        if not self.warm:
            return "the model is warming up"
        if (failures := self.engine.stats().failures_in_a_row) >= _FAILURES_THAT_COUNT:
            return f"the last {failures} forward passes failed"
        return ""
