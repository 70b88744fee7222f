"""The operator's scenarios on a real API server; see tests/integration/operator."""

from integration.operator.test_scenarios import test_scenario

__all__ = ["test_scenario"]
