"""Health: whether this process should live, and whether it should get requests."""

from dataclasses import dataclass, field

from kaito_runtime.adapters.manager import Residents
from kaito_runtime.engine.protocol import Engine

__all__ = ["Health"]

_FAILURES_THAT_COUNT = 2  # one bad request must not take the server out of service
_SELF_TESTS_THAT_COUNT = 5  # some twenty seconds of them; then only a new process can help


@dataclass(slots=True)
class Health:
    """Answers probes.

    Attributes:
        warm: A first answer went through the engine.
        draining: The process is about to end and takes no more requests.
        complete: Every adapter of the start has been loaded or has failed. One that is added later keeps nobody
            waiting: requests for it are answered 404 until it is there, and all others are served.
        failure: Why the background work (loading adapters, testing the model) has ended, or "".
        failed_self_tests: The errors of the self-tests since the last one that passed.
    """

    engine: Engine
    residents: Residents
    warm: bool = False
    draining: bool = False
    complete: bool = False
    failure: str = ""
    failed_self_tests: list[str] = field(default_factory=list)

    def why_dead(self) -> str:
        """Returns why the process should be restarted, or ""."""
        if reason := self.failure or self.engine.lost:
            return reason
        if not self.engine.alive:
            return "the engine has stopped"
        if len(self.failed_self_tests) >= _SELF_TESTS_THAT_COUNT:
            return (
                f"the last {len(self.failed_self_tests)} self-tests of the model failed: {self.failed_self_tests[-1]}"
            )
        return ""

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
