"""A World whose operator is stopped before a certain write, and started again."""

from collections.abc import Callable
from typing import Any

from kaito_testing.kube.server.fault_injection import Fault
from scenarios.support.karpenter import become_nodes
from scenarios.support.world import World

__all__ = ["NEVER", "MortalWorld"]

NEVER = 10**9


class MortalWorld(World):
    """A World with Karpenter, whose operator is stopped before a certain write, and started again."""

    _death: Fault | None = None

    def live(self, writes: int) -> None:
        """Starts an operator whose first writes, as many as this, are served; the next one fails and ends it."""
        self._death = self.cluster.fail("WRITE", "", 500, times=NEVER, after=writes)
        self.start()

    @property
    def died(self) -> bool:
        """Whether the operator was stopped at its last write."""
        return self._death is None

    @property
    def is_mute(self) -> bool:
        """Whether the operator has tried the write that fails."""
        return self.died or (self._death is not None and self._death.times < NEVER)

    def wait(self, what: str, condition: Callable[[], Any]) -> Any:
        """Waits as a World does; meanwhile the operator may be stopped and started again, and Karpenter makes nodes."""

        def look() -> Any:
            if self._death is not None and self._death.times < NEVER:
                self.stop()
                self._death.times, self._death = 0, None
                self.start()
            become_nodes(self)
            return condition()

        return super().wait(what, look)

    def wait_unraised(self, what: str, condition: Callable[[], Any]) -> Any:
        """Waits, and does not start an operator that was stopped."""

        def look() -> Any:
            become_nodes(self)
            return condition()

        return super().wait(what, look)

    def spare(self) -> None:
        """Lets all further writes be served."""
        if self._death is not None:
            self._death.times = 0
