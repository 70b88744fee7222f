"""The task that keeps the webhook's certificate: it ends for no error."""

import asyncio
from typing import Any

import pytest

from kaito_core.controller import backoff
from kaito_core.controller.plugin_thread import PluginThread
from kaito_core.controller.webhook.server import Webhook
from kaito_core.plugins import PluginRegistry


def test_whatever_goes_wrong_it_is_tried_again_later_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 4:
            raise asyncio.CancelledError

    errors: list[Any] = [ValueError("a spoilt certificate"), KeyError("clientConfig"), None, OSError("port taken")]

    async def refresh() -> None:
        error = errors[len(waits)]
        if error is not None:
            raise error

    webhook = Webhook(None, PluginRegistry(), PluginThread(), "ns", 0, check_seconds=600.0)  # type: ignore[arg-type]  # not called
    monkeypatch.setattr(webhook, "refresh", refresh)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(webhook.run())
    first, second, checked, again = waits
    assert checked == 600.0
    for wait, doublings in ((first, 0), (second, 1), (again, 0)):
        longest = backoff.FIRST_SECONDS * 2**doublings
        assert longest / 2 <= wait < longest
    assert [bool(record.exc_info) for record in caplog.records if record.levelname == "WARNING"] == [
        True,
        True,
        False,
    ]
