"""How long the operator waits before it tries again."""

import pytest

from kaito_core.controller.backoff import backoff_seconds


@pytest.mark.parametrize(("failures", "longest"), [(0, 0.5), (1, 1.0), (3, 4.0), (50, 300.0)])
def test_backoff_doubles_up_to_a_limit(failures: int, longest: float) -> None:
    assert backoff_seconds(failures, 0.0) == longest / 2
    assert longest / 2 < backoff_seconds(failures, 0.999) < longest
