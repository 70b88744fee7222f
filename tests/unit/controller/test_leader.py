"""Who a candidate for the Lease says it is. How candidates take turns is shown in tests/integration."""

import socket
from unittest.mock import Mock

import pytest

from kaito_core.controller.leader import Election


def test_a_candidate_is_named_after_its_pod_else_its_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_ID", "kaito-operator-abc")
    first, second = (Election(Mock(), "serving", 15).identity for _ in range(2))
    assert first.startswith("kaito-operator-abc_")
    assert first != second
    monkeypatch.delenv("POD_ID")
    assert Election(Mock(), "serving", 15).identity.startswith(f"{socket.gethostname()}_")
