"""Several processes that share one model, started as the operator starts them, against one that has it alone."""

import os
import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from live import Live, serving, until
from pods import Pods, pods

from kaito_runtime.config import ConfigFile
from kaito_runtime.testing.models import save_adapter, save_model

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
SETS: list[list[tuple[str, float]]] = [
    [],
    [("one", 1.0)],
    [("one", -0.7)],
    [("two", 0.4)],
    [("one", 0.5), ("two", -0.25)],
    [("one", 2.0), ("two", 1.0)],
    [("two", 0.0)],
    [("patterns", 1.5), ("one", 0.1)],
]


def save_adapters(model: Path, folder: Path, attention: list[str], patterned: str) -> None:
    save_adapter(model, folder / "one", seed=1, r=4, lora_alpha=8, target_modules=attention)
    save_adapter(model, folder / "two", seed=2, r=20, lora_alpha=16, use_rslora=True, target_modules="all-linear")
    save_adapter(
        model,
        folder / "patterns",
        seed=4,
        r=8,
        lora_alpha=8,
        target_modules="all-linear",
        rank_pattern={patterned: 3},
        alpha_pattern={patterned: 12},
    )


def bodies() -> list[dict[str, Any]]:
    """A mixed batch: each request its adapters, strengths and length, one longer than a step, two sampled."""
    found = []
    for index, chosen in enumerate(SETS):
        body: dict[str, Any] = {
            "model": "base",
            "prompt": "".join(chr(40 + (7 * index + j) % 80) for j in range(150 if index == 4 else 9 + 3 * index)),
            "max_tokens": 12,
            "temperature": 0,
            "logprobs": 3,
            "logit_bias": {"256": -100},
            "adapters": [{"name": name, "strength": strength} for name, strength in chosen],
        }
        found.append(body)
    sampled = {"temperature": 1.0, "seed": 11, "top_p": 0.9, "presence_penalty": 0.5}
    return [*found, found[3] | sampled, found[0] | sampled | {"n": 2}]


def ask_all(url: str) -> list[list[dict[str, Any]]]:
    """Returns the choices of every request of the batch, asked at the same time."""

    def ask(body: dict[str, Any]) -> list[dict[str, Any]]:
        response = httpx.post(f"{url}/v1/completions", json=body, timeout=120)
        assert response.status_code == 200, response.text
        return list(response.json()["choices"])

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(ask, bodies()))


def compare(shared: list[list[dict[str, Any]]], alone: list[list[dict[str, Any]]]) -> None:
    """Token for token, and the log-probabilities of what was chosen and of what was not."""
    for ours, truth in zip(shared, alone, strict=True):
        for choice, expected in zip(ours, truth, strict=True):
            assert choice["text"] == expected["text"]
            assert choice["logprobs"]["tokens"] == expected["logprobs"]["tokens"]
            assert choice["logprobs"]["token_logprobs"] == pytest.approx(
                expected["logprobs"]["token_logprobs"], abs=TOLERANCE
            )
            for top, expected_top in zip(
                choice["logprobs"]["top_logprobs"], expected["logprobs"]["top_logprobs"], strict=True
            ):
                assert top == pytest.approx(expected_top, abs=TOLERANCE)
    assert len({choice["text"] for choices in alone for choice in choices}) >= len(SETS) - 1


class Both:
    """One model, served by two processes and by one."""

    def __init__(self, shared: Pods, alone: Live) -> None:
        self.shared = shared
        self.alone = alone


@pytest.fixture(scope="module", params=["llama", "falcon-old", "falcon-new"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    llama = request.param == "llama"
    if not llama:
        pytest.importorskip("kaito_falcon.recipe", reason="Falcon needs its package's recipe")
    folder = tmp_path_factory.mktemp("ranks")
    model = save_model(tmp_path_factory.mktemp("model"), request.param)
    save_adapters(
        model,
        folder / "adapters-0",
        ["q_proj", "v_proj"] if llama else ["query_key_value"],
        "down_proj" if llama else "dense_4h_to_h",
    )
    with pods(model, folder) as shared:
        shared.configure(one=0.5, two=1.0, patterns=1.0)
        with serving(model, ConfigFile(shared.file), adapters_dir=shared.adapters[0], step_tokens=64) as alone:
            shared.ready()
            shared.loaded("one", "two", "patterns")
            yield Both(shared, alone)


def test_mixed_batch_gives_what_one_process_gives(both: Both) -> None:
    compare(ask_all(both.shared.urls[0]), ask_all(both.alone.url))


def test_changes_while_requests_run_are_exact(both: Both) -> None:
    shared = both.shared
    asked = {"model": "one", "prompt": "hello", "max_tokens": 200, "temperature": 0, "logit_bias": {"256": -100}}
    truth = both.alone.post("/v1/completions", asked).json()["choices"][0]["text"]
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(shared.post("/v1/completions", asked).json()))
    thread.start()
    running = re.compile(r"^vllm:num_requests_running\S* 1", re.M)
    until(lambda: running.search(shared.get("/metrics").text), "the request runs")
    shutil.copytree(shared.adapters[0] / "one", shared.adapters[0] / "late")
    shared.configure(one=-1.25, late=0.5, patterns=1.0)  # another strength, one more, one less
    shared.loaded("one", "late", "patterns")
    thread.join()
    assert [choice["text"] for choice in got[0].get("choices", [])] == [truth], got  # it held on to what it began with
    changed = asked | {"max_tokens": 20}
    expected = both.alone.post("/v1/completions", changed | {"adapters": [{"name": "one", "strength": -1.25}]})
    assert (
        shared.post("/v1/completions", changed).json()["choices"][0]["text"] == (expected.json()["choices"][0]["text"])
    )
    assert shared.post("/v1/completions", changed | {"model": "two"}).status_code == 404
    assert shared.post("/v1/completions", changed | {"model": "late"}).status_code == 200
    shutil.rmtree(shared.adapters[0] / "late")
    shared.configure(one=0.5, two=1.0, patterns=1.0)
    shared.loaded("one", "two", "patterns")
    compare(ask_all(shared.urls[0]), ask_all(both.alone.url))


def test_clients_that_leave_are_forgotten_on_all_ranks(both: Both) -> None:
    body = {"model": "one", "prompt": "a", "max_tokens": 230, "logit_bias": {"256": -100}, "stream": True}
    for _ in range(3):
        with httpx.stream("POST", f"{both.shared.urls[0]}/v1/completions", json=body) as response:
            next(response.iter_lines())
    compare(ask_all(both.shared.urls[0]), ask_all(both.alone.url))


@pytest.fixture
def llama(tiny_llama: Path, tiny_adapters: Path, tmp_path: Path) -> tuple[Path, Path]:
    shutil.copytree(tiny_adapters, tmp_path / "adapters-0")
    return tiny_llama, tmp_path


def test_sigterm_finishes_what_runs(llama: tuple[Path, Path]) -> None:
    with pods(*llama) as shared:
        shared.ready()
        body = {"model": "base", "prompt": "a", "max_tokens": 100, "logit_bias": {"256": -100}, "stream": True}
        with httpx.stream("POST", f"{shared.urls[0]}/v1/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            shared.nodes[0].signal(signal.SIGTERM)
            until(lambda: "running requests may finish" in shared.nodes[0].text, "draining")
            assert shared.answers("/readyz") == 503
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert len(rest) > 50
        shared.nodes[0].wait()
        assert "stopping with the leader" in shared.nodes[0].text
        assert "lost the others" not in shared.nodes[0].text


def test_a_rank_that_dies_ends_the_server(llama: tuple[Path, Path]) -> None:
    with pods(*llama) as shared:
        shared.ready()
        body = {"model": "base", "prompt": "a", "max_tokens": 200, "logit_bias": {"256": -100}, "stream": True}
        with httpx.stream("POST", f"{shared.urls[0]}/v1/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            os.kill(shared.nodes[0].ranks()[1], signal.SIGKILL)
            rest = [line for line in lines if line]
        assert '"code":"engine_error"' in rest[-2] or '"code":"engine_stopped"' in rest[-2]
        assert shared.nodes[0].wait() == 1
        assert "rank 1" in shared.nodes[0].text or "rank      : 1" in shared.nodes[0].text


def test_two_nodes_serve_from_the_first(llama: tuple[Path, Path], tiny_adapters: Path) -> None:
    model, folder = llama
    with pods(model, folder, nodes=2, gpus=1) as shared:
        shared.ready()
        assert [shared.answers(path, node=1) for path in ("/health", "/livez", "/readyz")] == [200] * 3
        refused = shared.post("/v1/completions", {"model": "base", "prompt": "a"}, node=1)
        assert refused.status_code == 503
        assert "rank 0 serves, on " in refused.json()["error"]["message"]

        shared.configure(one=0.5)  # the second node has no file of it yet
        until(lambda: shared.applied().get("one", ("",))[0] == "Loading", "loading")
        assert shared.post("/v1/completions", {"model": "one", "prompt": "a"}).status_code == 503
        assert shared.post("/v1/completions", {"model": "base", "prompt": "a"}).status_code == 200
        shutil.copytree(tiny_adapters / "one", shared.adapters[1] / "one")
        shared.loaded("one")
        with serving(model, ConfigFile(shared.file), adapters_dir=shared.adapters[0]) as alone:
            asked = {"model": "tiny", "prompt": "hello", "max_tokens": 10, "temperature": 0}
            ours, truth = shared.post("/v1/completions", asked), alone.post("/v1/completions", asked)
            assert ours.json()["choices"] == truth.json()["choices"]

        first = shared.nodes[0]
        shared.nodes[1].signal(signal.SIGTERM)  # a node that goes takes the server with it, in order
        assert shared.nodes[1].wait() != 0
        assert first.wait() == 1
        assert "running requests may finish" in first.text
        assert "the ranks of this node end too" in first.text


def loses_a_rank(shared: Pods) -> None:
    os.kill(shared.nodes[1].ranks()[1], signal.SIGKILL)
    until(lambda: shared.answers("/readyz") != 200, "the server is gone")


# What happens, and how often each container may have to start again until the server is whole: once more than it must
# where a node can come back before the other has gone.
LOSSES: dict[str, tuple[Callable[[Pods], None], tuple[int, int]]] = {
    "a rank dies": (loses_a_rank, (1, 2)),
    "the second pod is replaced": (lambda shared: shared.replace(1), (1, 1)),
    "the first pod is replaced": (lambda shared: shared.replace(0), (1, 1)),
    "all pods are replaced, as the operator does it": (lambda shared: shared.replace(0, 1), (0, 1)),
}


def test_two_nodes_are_whole_again(llama: tuple[Path, Path]) -> None:
    with pods(*llama, nodes=2, gpus=1) as shared:
        shared.ready()
        asked = {"model": "tiny", "prompt": "hello", "max_tokens": 10, "temperature": 0}
        truth = shared.post("/v1/completions", asked).json()["choices"]
        for loss, (happens, most) in LOSSES.items():
            shared.restarts = [0, 0]
            happens(shared)
            shared.recover()
            again = shared.post("/v1/completions", asked)
            assert again.json().get("choices") == truth, f"{loss}: {again.text}"
            assert shared.restarts[0] <= most[0] and shared.restarts[1] <= most[1], f"{loss}: {shared.restarts}"


def test_heads_that_cannot_be_shared_are_refused_before_loading(llama: tuple[Path, Path]) -> None:
    with pods(*llama, gpus=3) as shared:
        assert shared.nodes[0].wait() == 1
    assert "the model has 4 attention heads, which 3 processes (WORLD_SIZE) cannot share evenly" in shared.nodes[0].text
    assert "start 1, 2" in shared.nodes[0].text
