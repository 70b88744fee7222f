"""A live server whose configuration and adapters change while requests run."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import Live, serving, until

from kaito_runtime.config import ConfigFile

PROMPT = {"prompt": "hello", "max_tokens": 10, "temperature": 0}


class Pod:
    """A server with its configuration file and adapters folder."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "serving.json"
        self.adapters = folder / "adapters"
        self.generation = 0
        self.live: Live

    def configure(self, **adapters: Any) -> None:
        self.generation += 1
        listed = [{"name": name, "strength": strength} for name, strength in adapters.items()]
        body = {"generation": self.generation, "model": {"name": "tiny"}, "adapters": listed}
        self.file.write_text(json.dumps(body))

    def applied(self) -> dict[str, tuple[str, float]] | None:
        body = self.live.get("/v1/adapters").json()
        if body["generation"] != self.generation:
            return None
        return {entry["name"]: (entry["state"], entry["strength"]) for entry in body["data"]}

    def wait(self, **wanted: tuple[str, float]) -> None:
        until(lambda: self.applied() == wanted, f"{wanted} is applied, but {self.applied()}")

    def text(self, model: str = "tiny", **more: Any) -> str:
        response = self.live.post("/v1/completions", PROMPT | {"model": model} | more)
        response.raise_for_status()
        return str(response.json()["choices"][0]["text"])


@pytest.fixture
def pod(tiny_llama: Path, tiny_adapters: Path, tmp_path: Path) -> Iterator[Pod]:
    pod = Pod(tmp_path)
    shutil.copytree(tiny_adapters / "one", pod.adapters / "one")
    pod.configure(one=0.8)
    with serving(tiny_llama, ConfigFile(pod.file), adapters_dir=pod.adapters) as live:
        pod.live = live
        yield pod


def test_strengths_adapters_and_removals_are_applied_without_a_restart(pod: Pod, tiny_adapters: Path) -> None:
    before = pod.text()
    pod.configure(one=-1.5)
    pod.wait(one=("Ready", -1.5))
    after = pod.text()
    assert after != before
    assert pod.text(adapters=[{"name": "one", "strength": 0.8}]) == before

    pod.configure(one=0.8, two=0.5)  # as a Workspace does it: the configuration first, the files a moment later
    pod.wait(one=("Ready", 0.8), two=("Loading", 0.5))
    assert pod.live.post("/v1/completions", PROMPT | {"model": "two"}).status_code == 503
    assert pod.text("one") == before
    shutil.copytree(tiny_adapters / "two", pod.adapters / "two")
    pod.wait(one=("Ready", 0.8), two=("Ready", 0.5))
    assert pod.text("one") == before
    assert pod.text() not in (before, after, pod.text("two"))

    pod.configure()
    pod.wait()
    assert pod.live.post("/v1/completions", PROMPT | {"model": "one"}).status_code == 404
    assert pod.text() == pod.text("base")
    until(lambda: not pod.live.server._engine._runner.resident(), "everything is unloaded")


def test_adapter_that_fails_leaves_the_server_up(pod: Pod) -> None:
    shutil.copytree(pod.adapters / "one", pod.adapters / "bad")
    (pod.adapters / "bad" / "adapter_model.safetensors").write_bytes(b"nonsense")
    pod.configure(one=0.8, bad=1.0)
    pod.wait(one=("Ready", 0.8), bad=("Failed", 1.0))
    response = pod.live.post("/v1/completions", PROMPT | {"model": "bad"})
    assert response.status_code == 404
    assert "'bad'" in response.json()["error"]["message"]
    assert pod.text("tiny") == pod.text("one") != pod.text("base")
    assert pod.live.get("/readyz").status_code == 200


def test_requests_in_flight_keep_their_version(pod: Pod, tiny_adapters: Path) -> None:
    asked = {"max_tokens": 240, "logit_bias": {"256": -100}}
    alone = pod.text(**asked)
    got: list[str] = []
    thread = threading.Thread(target=lambda: got.append(pod.text(**asked)))
    thread.start()
    until(lambda: pod.live.engine.stats().running, "the request runs")
    shutil.rmtree(pod.adapters / "one")
    shutil.copytree(tiny_adapters / "two", pod.adapters / "one")
    thread.join()
    assert got == [alone]
    until(lambda: pod.applied() == {"one": ("Ready", 0.8)} and pod.text(**asked) != alone, "the other one is applied")


class Client:
    """Streams one greedy answer after the other from the default model id, until it is told to stop.

    Attributes:
        answers: Generation and text of each.
        errors: What went wrong.
    """

    def __init__(self, live: Live) -> None:
        self.live = live
        self.answers: list[tuple[int, str]] = []
        self.errors: list[str] = []
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            response = self.live.post("/v1/completions", PROMPT | {"model": "tiny", "stream": True})
            events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
            if response.status_code != 200 or events[-1] != "[DONE]" or '"error"' in response.text:
                self.errors.append(response.text)
                continue
            text = "".join(choice["text"] for event in events[:-1] for choice in json.loads(event)["choices"])
            self.answers.append((int(response.headers["x-kaito-generation"]), text))

    def sees(self, generation: int) -> None:
        until(lambda: self.errors or (self.answers and self.answers[-1][0] == generation), f"generation {generation}")


@pytest.mark.slow
def test_no_request_fails_while_adapters_come_late_or_fail(pod: Pod, tiny_adapters: Path) -> None:
    client = Client(pod.live)
    thread = threading.Thread(target=client.run)
    thread.start()
    try:
        client.sees(1)
        pod.configure(one=-1.5)
        client.sees(2)
        pod.configure(one=-1.5, two=0.5)
        pod.wait(one=("Ready", -1.5), two=("Loading", 0.5))
        pod.configure(one=0.3, two=0.5)
        pod.wait(one=("Ready", 0.3), two=("Loading", 0.5))
        client.sees(2)
        shutil.copytree(tiny_adapters / "two", pod.adapters / "two")
        client.sees(4)
        shutil.copytree(tiny_adapters / "two", pod.adapters / "bad")
        (pod.adapters / "bad" / "adapter_model.safetensors").write_bytes(b"nonsense")
        pod.configure(one=0.3, two=2, bad=1.0)
        pod.wait(one=("Ready", 0.3), two=("Ready", 2), bad=("Failed", 1.0))
        client.sees(4)
        pod.configure(one=0.3, two=2)
        client.sees(6)
    finally:
        client.stop.set()
        thread.join()
    assert client.errors == []
    generations = [generation for generation, _ in client.answers]
    assert generations == sorted(generations)
    assert set(generations) == {1, 2, 4, 6}, "what was never complete was never served"
    assert len(set(client.answers)) == 4, "all answers of a generation are the same"
    assert len({text for _, text in client.answers}) == 4, "and no other's"


def test_broken_configuration_is_reported_and_ignored(pod: Pod) -> None:
    before = pod.text()
    pod.file.write_text('{"model": {"name": "tiny"}, "adapters": [{"name": "one", "strength": "abc"}]}')
    error = until(lambda: pod.live.get("/v1/adapters").json()["error"], "the error is reported")
    assert "adapters[0].strength must be a finite number, got 'abc'" in error
    assert pod.text() == before
