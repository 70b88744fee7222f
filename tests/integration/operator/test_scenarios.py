"""The operator on the emulated API: all scenarios."""

import pytest

from scenarios.adapters import an_adapter_joins_running_pods
from scenarios.catalog import SCENARIOS, Scenario
from scenarios.support.world import World


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_scenario(scenario: Scenario, world: World) -> None:
    world.start()
    scenario(world)


def test_a_scenario_by_hand(bare_world: World) -> None:
    bare_world.start()
    an_adapter_joins_running_pods(bare_world)
