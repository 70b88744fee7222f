"""The operator's scenarios on a real API server, where a World's hands do what kubelets do; see tests/integration."""

from test_operator import test_scenario

__all__ = ["test_scenario"]
