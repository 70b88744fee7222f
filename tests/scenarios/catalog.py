"""All scenarios, which run on the emulated API and on a real one.

A scenario gets a World whose operator runs, and asserts on the state of the cluster.
"""

from collections.abc import Callable

from scenarios import adapters, configs, deletion, edits, failures, life, nodes, pools, scaling, takeover
from scenarios.support.world import World

__all__ = ["SCENARIOS", "Scenario"]

Scenario = Callable[[World], None]
SCENARIOS: tuple[Scenario, ...] = (
    *life.SCENARIOS,
    *nodes.SCENARIOS,
    *pools.SCENARIOS,
    *scaling.SCENARIOS,
    *takeover.SCENARIOS,
    *adapters.SCENARIOS,
    *edits.SCENARIOS,
    *configs.SCENARIOS,
    *failures.SCENARIOS,
    *deletion.SCENARIOS,
)
