"""Replicas: when they are asked, and that the runtime's own answer is understood."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from kaito_core.api import KubeObject, ServedAdapter, ServedModel, ServingConfig, Workspace, parse_workspace
from kaito_core.controller.work.replicas import Replicas, ask_over_http, parse_report
from kaito_core.reconcile.observed import AdapterReport
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.http.status import adapters_body


def workspace(generation: int, strength: str = "0.5") -> Workspace:
    return parse_workspace(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": "w", "namespace": "ns", "generation": generation},
            "inference": {
                "preset": {"name": "p"},
                "adapters": [{"source": {"name": "style", "image": "registry.example/style:1"}, "strength": strength}],
            },
        }
    )


def pod(name: str, restarts: int = 0, ready: bool = True) -> KubeObject:
    return {
        "metadata": {"name": name, "uid": name},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "containerStatuses": [{"name": "runtime", "containerID": f"c{restarts}", "restartCount": restarts}],
        },
    }


def report(generation: int, state: str = "Ready", strength: float = 0.5) -> AdapterReport:
    return AdapterReport(generation, ({"name": "style", "strength": strength, "state": state},))


class Answers:
    """Answers what it is told to and notes who was asked."""

    def __init__(self) -> None:
        self.answer: AdapterReport | None = report(1)
        self.asked: list[str] = []

    async def ask(self, pod: KubeObject) -> AdapterReport | None:
        self.asked.append(pod["metadata"]["name"])
        return self.answer


def test_they_are_asked_only_while_something_can_change() -> None:
    answers = Answers()
    replicas = Replicas(answers.ask)

    def look(generation: int, *pods: KubeObject, strength: str = "0.5") -> set[str]:
        answers.asked.clear()
        return set(asyncio.run(replicas.reports(workspace(generation, strength), pods)))

    a, b = pod("a"), pod("b")
    assert look(1, a) == {"a"} and answers.asked == ["a"]
    assert look(1, a) == {"a"} and answers.asked == []
    assert look(1, a, b) == {"a", "b"} and answers.asked == ["b"]
    assert look(2, a, b, strength="0.75") == {"a", "b"} and answers.asked == ["a", "b"]  # another configuration
    answers.answer = report(2, strength=0.75)
    assert look(2, a, b, strength="0.75") == {"a", "b"} and answers.asked == ["a", "b"]  # it was not settled
    assert look(2, a, b, strength="0.75") == {"a", "b"} and answers.asked == []
    assert look(2, pod("a", restarts=1), b, strength="0.75") == {"a", "b"} and answers.asked == ["a"]
    answers.answer = None
    assert look(3, a, b) == set()  # what was said before is not said now
    assert look(3, pod("a", ready=False)) == set() and answers.asked == []


@pytest.mark.parametrize("state", ["Loading", "Failed"])
def test_an_adapter_that_is_not_ready_is_asked_about_again(state: str) -> None:
    answers = Answers()
    answers.answer = report(1, state)
    replicas = Replicas(answers.ask)
    for _ in range(2):
        asyncio.run(replicas.reports(workspace(1), [pod("a")]))
    assert answers.asked == ["a", "a"]


def runtime_answer() -> dict[str, Any]:
    adapters = (ServedAdapter(name="style", strength=0.5, path="style/1"),)
    config = ServingConfig(generation=7, model=ServedModel(name="p"), adapters=adapters)
    return adapters_body(AdapterManager(None, config))  # type: ignore[arg-type]  # nothing is loaded, so no engine is used


def test_the_runtimes_answer_is_understood() -> None:
    said = parse_report(json.loads(json.dumps(runtime_answer())))
    assert said.generation == 7
    (row,) = said.adapters
    assert (row["name"], row["strength"], row["state"]) == ("style", 0.5, "Loading")


@pytest.fixture
def address() -> Iterator[str]:
    """The address of a server on the runtime's port, of the loopback network."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path == "/v1/adapters"
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(json.dumps(runtime_answer()).encode() if known else b"{}")

        def log_message(self, *_: object) -> None:
            pass

    address = "127.42.0.9"
    with HTTPServer((address, 5000), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield address
        server.shutdown()


def test_pods_are_asked_over_http(address: str) -> None:
    asked = {**pod("a"), "status": {"podIP": address}}
    said = asyncio.run(ask_over_http(asked))
    assert said is not None and said.generation == 7


@pytest.mark.parametrize("status", [{}, {"podIP": "127.42.0.10"}])
def test_a_pod_that_does_not_answer_says_nothing(status: KubeObject) -> None:
    assert asyncio.run(ask_over_http({**pod("a"), "status": status})) is None
