"""The emulated API answers as a real server did (Kubernetes 1.36), step by step of a record."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from kaito_testing.world.cluster import FakeCluster

DATA = Path(__file__).parents[2] / "data"

#: Steps that may answer differently from the real server, each with the reason.
DISAGREEMENTS: dict[str, str] = {}


def _tool() -> ModuleType:
    """The tool that made the record; it also compares."""
    spec = importlib.util.spec_from_file_location("kube_transcript", DATA / "kube_transcript.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _compare(url: str) -> dict[str, list[str]]:
    """The differences of each step that has any."""
    tool = _tool()
    record = [json.loads(line) for line in (DATA / "kubernetes-1.36-transcript.jsonl").read_text().splitlines()]
    server, found = tool.Server(url), {}
    assert [step["step"] for step in record] == [step[0] for step in tool.STEPS]
    previous = ""
    for wanted, (name, *request) in zip(record, tool.STEPS, strict=True):
        code, answer = server.step(name, *request)
        answer = tool.normal(answer)
        differences = list(tool.differences(wanted["response"], answer))
        if code != wanted["status"]:
            differences.append(f"status: want {wanted['status']}, got {code}")
        if wanted["response"].get("rvKept") and server.seen[name]["rv"] != server.seen[previous]["rv"]:
            differences.append("resourceVersion changed")
        if differences:
            found[name] = differences
        previous = name
    return found


@pytest.mark.slow
def test_each_step_answers_as_recorded(kaito_cluster: FakeCluster) -> None:
    found = _compare(kaito_cluster.url)
    assert set(found) == set(DISAGREEMENTS), found


@pytest.mark.slow
def test_the_comparison_finds_a_server_that_answers_differently(kaito_cluster: FakeCluster) -> None:
    kaito_cluster.fail("DELETE", "configmaps/a$", 500, times=3)
    assert {"cm delete", "cm delete again: NotFound"} <= set(_compare(kaito_cluster.url))
