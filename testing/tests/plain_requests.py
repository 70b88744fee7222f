"""Requests as anybody sends them, by nothing but Python's own HTTP client."""

import json
import urllib.request
from typing import Any

from kaito_testing.world.client import MERGE

__all__ = ["call", "lines"]

Object = dict[str, Any]


def call(url: str, method: str = "GET", body: Any = None, kind: str = MERGE, agent: str = "someone/1") -> Object:
    """A request by a client that is logged and meets faults, as the test's own client does not."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"User-Agent": agent, "Content-Type": kind}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers, method=method), timeout=10) as answer:
        return dict(json.load(answer))


def lines(url: str) -> list[Object]:
    """The events of a watch until it ends."""
    with urllib.request.urlopen(urllib.request.Request(url, headers={"User-Agent": "watcher"}), timeout=20) as answer:
        return [json.loads(line) for line in answer.read().splitlines()]
