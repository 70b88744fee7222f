"""What the operator does, as scenarios over a World: the same on the emulated API and on a real one.

A scenario gets a World whose operator runs, and asserts on the state of the cluster.
"""

from collections.abc import Callable

import operator_adapter_scenarios
import operator_edit_scenarios
import operator_end_scenarios
import operator_failure_scenarios
import operator_life_scenarios
import operator_node_scenarios
from operator_world import World

__all__ = ["SCENARIOS", "Scenario"]

Scenario = Callable[[World], None]
SCENARIOS: tuple[Scenario, ...] = (
    *operator_life_scenarios.SCENARIOS,
    *operator_node_scenarios.SCENARIOS,
    *operator_adapter_scenarios.SCENARIOS,
    *operator_edit_scenarios.SCENARIOS,
    *operator_failure_scenarios.SCENARIOS,
    *operator_end_scenarios.SCENARIOS,
)
