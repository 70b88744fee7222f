"""Health: whether the process should be restarted, and whether it should get requests. Probes read it."""

from dataclasses import dataclass, field

from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.engine.protocol import Engine

__all__ = ["Health"]

_FAILURES_THAT_COUNT = 2  # in a row: a single one must not take the server out of service
_SELF_TESTS_THAT_COUNT = 5  # in a row, over some twenty seconds; then only a new process can help


@dataclass(slots=True)
class Health:
    """Liveness and readiness of the server.

    Attributes:
        warm: Whether the model has computed a first answer.
        draining: Whether the process is about to end, and takes no more requests.
        complete: Whether every adapter of the start was loaded or has failed. An adapter that is added later does not
            make the server unready.
        failure: Why the background task (loading adapters, testing the model) has ended, or "".
        failed_self_tests: Errors of the self-tests since the last one that passed.
    """

    engine: Engine
    adapters: AdapterManager
    warm: bool = False
    draining: bool = False
    complete: bool = False
    failure: str = ""
    failed_self_tests: list[str] = field(default_factory=list)

    def why_dead(self) -> str:
        """Returns why the process must be restarted; "" if it need not be."""
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
        """Returns why requests should go to other replicas; "" if not. A failed adapter is not a reason."""
        if self.draining:
            return "the server is stopping"
        if dead := self.why_dead():
            return dead
        self.complete = self.complete or self.adapters.settled
        if not self.complete:
            return "adapters are being loaded"
        if not self.warm:
            return "the model is warming up"
        if (failures := self.engine.stats().failures_in_a_row) >= _FAILURES_THAT_COUNT:
            return f"the last {failures} forward passes failed"
        return ""
