"""A World whose operator dies before a certain write, and is succeeded by another. No scenario lives here."""

from collections.abc import Callable
from typing import Any

from kaito_testing.kube.server.fault_injection import Fault
from scenarios.support.karpenter import become_nodes
from scenarios.support.world import World

__all__ = ["NEVER", "MortalWorld"]

NEVER = 10**9


class MortalWorld(World):
    """A World with Karpenter, whose operator dies before a certain write, and is started anew."""

    _death: Fault | None = None

    def live(self, writes: int) -> None:
        """Starts an operator that writes this often, and then not once more."""
        self._death = self.cluster.fail("WRITE", "", 500, times=NEVER, after=writes)
        self.start()

    @property
    def died(self) -> bool:
        """Whether the operator got to its last write."""
        return self._death is None

    @property
    def is_mute(self) -> bool:
        """Whether the operator would have written once more, and could not."""
        return self.died or (self._death is not None and self._death.times < NEVER)

    def wait(self, what: str, condition: Callable[[], Any]) -> Any:
        """Waits as a World does; meanwhile the operator may die and is succeeded, and Karpenter makes nodes."""

        def look() -> Any:
            if self._death is not None and self._death.times < NEVER:
                self.stop()
                self._death.times, self._death = 0, None
                self.start()
            become_nodes(self)
            return condition()

        return super().wait(what, look)

    def wait_unraised(self, what: str, condition: Callable[[], Any]) -> Any:
        """Waits too, and leaves the dead as they are."""

        def look() -> Any:
            become_nodes(self)
            return condition()

        return super().wait(what, look)

    def spare(self) -> None:
        """Lets the operator live on."""
        if self._death is not None:
            self._death.times = 0
