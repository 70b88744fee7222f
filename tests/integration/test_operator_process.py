"""The operator as a process: probes, metrics, namespaces, start and stop."""

import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from operator_world import World, adapter, workspace

from kaito_core.controller.app import run_operator
from kaito_core.errors import ConfigError
from kaito_core.plugins import PluginRegistry
from kaito_core.settings import Settings
from kaito_core.testing.cluster import FakeCluster


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _read(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_probes_and_metrics(world: World) -> None:
    port = _free_port()
    world.start(settings=Settings(health_port=port))  # all namespaces
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    world.cause_pass("w")
    assert _read(port, "/livez") == (200, "ok")
    assert _read(port, "/readyz") == (200, "ok")
    status, text = _read(port, "/metrics")
    assert status == 200
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines["kaito_workspaces"] == "1.0" and lines["kaito_plugins_failed"] == "0.0"
    assert lines['kaito_actions_total{action="Apply"}'] == "3.0"
    assert float(lines['kaito_passes_total{outcome="steady"}']) >= 1


def test_other_namespaces_are_out_of_sight(world: World, fake_cluster: FakeCluster) -> None:
    fake_cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    world.start()
    elsewhere = workspace("w")
    elsewhere["metadata"]["namespace"] = "other"
    fake_cluster.apply(elsewhere)
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    assert fake_cluster.get("deployments", "w", "other") is None
    assert not fake_cluster.requests(manager="kaito-operator", path="^/api/v1/pods$")
    watches = [record for record in fake_cluster.requests(manager="kopf", path="/pods$") if "watch" in record.query]
    assert {record.query["labelSelector"] for record in watches} == {"kaito.sh/workspace"}


def test_two_namespaces_do_not_mix(world: World, fake_cluster: FakeCluster) -> None:
    fake_cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    world.start(settings=Settings(health_port=0))
    elsewhere = workspace("w", adapters=[adapter("style")])
    elsewhere["metadata"]["namespace"] = "other"
    fake_cluster.apply(elsewhere)
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    world.wait(
        "the other is ready",
        lambda: ((fake_cluster.get("workspaces", "w", "other") or {}).get("status") or {}).get("state") == "Ready",
    )
    assert world.existing("workspaces", "w")["status"]["adapters"] == []


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        run_operator(Settings(health_port=0), PluginRegistry(), kubeconfig=str(tmp_path / "nowhere.yaml"))


def test_a_port_that_is_taken_is_said_at_once(world: World) -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        with pytest.raises(OSError, match="address already in use"):
            world.start(settings=Settings(health_port=listener.getsockname()[1]))


@pytest.mark.slow  # a Python process starts
def test_sigterm_ends_the_process(world: World, fake_cluster: FakeCluster, tmp_path: Path) -> None:
    program = (
        "import sys, threading\n"
        "from kaito_core.controller.app import run_operator\n"
        "from kaito_core.plugins import PluginRegistry\n"
        "from kaito_core.settings import Settings\n"
        "settings = Settings(health_port=0)\n"
        "run_operator(settings, PluginRegistry.discover(settings), kubeconfig=sys.argv[1], stop=threading.Event())\n"
    )
    kubeconfig = str(fake_cluster.kubeconfig(tmp_path / "kubeconfig"))
    process = subprocess.Popen([sys.executable, "-c", program, kubeconfig], env=dict(os.environ))
    try:
        fake_cluster.apply(workspace("w", "smollm2-135m-instruct"))
        world.wait("it is served", lambda: world.get("deployments", "w"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
