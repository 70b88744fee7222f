"""The time of one run of the benchmark."""

import time
from dataclasses import dataclass

__all__ = ["Run", "Stopwatch"]


@dataclass(frozen=True)
class Run:
    """The seconds that one run took, and its answers."""

    cpu_seconds: float
    wall_seconds: float
    texts: list[str]

    def __add__(self, other: "Run") -> "Run":
        return Run(
            self.cpu_seconds + other.cpu_seconds, self.wall_seconds + other.wall_seconds, self.texts + other.texts
        )


class Stopwatch:
    """Runs from the moment it is made. CPU time is that of the whole process."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def stop(self, texts: list[str]) -> Run:
        """Returns the run that gave these answers."""
        return Run(time.process_time() - self._cpu, time.perf_counter() - self._wall, texts)
