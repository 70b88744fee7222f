"""The operator as a process: probes, metrics, namespaces, start and stop."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kaito_core import hookimpl
from kaito_core.api import Cluster, GpuSku, NodeRequest, NodeState, ResourceType, Workspace
from kaito_core.controller import app
from kaito_core.controller.app import run_operator
from kaito_core.controller.plugin_thread import PluginThread
from kaito_core.controller.webhook.server import Webhook
from kaito_core.errors import CapacityError, ConfigError, FieldError
from kaito_core.plugins import PluginRegistry
from kaito_core.settings import Settings
from kaito_gpu_onprem.provider import OnPremProvider
from kaito_testing.kube.server.fault_injection import RequestRecord
from kaito_testing.world.cluster import FakeCluster
from scenarios.support.karpenter import nodeclaim_crd
from scenarios.support.process import Process
from scenarios.support.world import World, adapter, workspace


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


def _scrape(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Returns the samples of /metrics by name and labels, read as Prometheus reads them."""
    families = text_string_to_metric_families(_read(port, "/metrics")[1])
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def _value(samples: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_probes_and_metrics(world: World, kaito_cluster: FakeCluster) -> None:
    port = _free_port()
    world.start(settings=Settings(health_port=port), providers=(OnPremProvider(), _Failing()))  # all namespaces
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    world.apply(workspace("dear", "on-gpu", resource={"instanceType": "failing-1"}))
    world.wait_reason("dear", "WorkspaceSucceeded", "InsufficientCapacity")
    world.cause_pass("w")
    assert _read(port, "/livez") == (200, "ok")
    assert _read(port, "/readyz") == (200, "ok")
    samples = _scrape(port)
    assert _value(samples, "kaito_leader") == 1
    assert _value(samples, "kaito_workspaces") == 2
    assert _value(samples, "kaito_plugins_failed") == 0
    assert _value(samples, "kaito_queue_depth") >= 0
    assert _value(samples, "kaito_watches_silent") == 0
    assert _value(samples, "kaito_caches_refreshed_timestamp_seconds") > 1.7e9
    assert _value(samples, "kaito_actions_total", action="Apply") == 3
    assert _value(samples, "kaito_passes_total", outcome="steady") >= 1
    assert _value(samples, "kaito_passes_total", outcome="wrote") >= 1
    assert _value(samples, "kaito_pass_seconds_count") >= 3
    for kind in ("ConfigMap", "Service", "Deployment"):
        assert _value(samples, "kaito_api_writes_total", kind=kind, subresource="", verb="patch", code="201") == 1
    write = {"kind": "Workspace", "subresource": "status", "verb": "patch", "code": "200"}
    written = [r for r in kaito_cluster.writes(manager="kaito") if r.path.endswith("/status")]
    assert _value(samples, "kaito_api_writes_total", **write) == len(written)
    assert _value(samples, "kaito_provider_errors_total", provider="failing", error="CapacityError") >= 1
    for stage in ("nodes", "server", "ready"):
        assert _value(samples, "kaito_ready_seconds_count", stage=stage) == 1
        assert _value(samples, "kaito_ready_seconds_bucket", stage=stage, le="+Inf") == 1
    assert _documented_metrics() == {
        name for name, _ in samples if not name.endswith(("_created", "_bucket", "_sum", "_count"))
    } | {"kaito_pass_seconds", "kaito_ready_seconds", "kaito_plugin_info"}


def _documented_metrics() -> set[str]:
    page = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
    return set(re.findall(r"^\| `(kaito_\w+)`", page.read_text(), re.MULTILINE))


class _Failing:
    """A provider that never has anything."""

    name = "failing"
    creates_nodes = True
    watches: Sequence[ResourceType] = ()

    def skus(self) -> Sequence[GpuSku]:
        return (GpuSku("failing-1", 1, 80, "example"),)

    async def ensure(self, request: NodeRequest, cluster: Cluster) -> NodeState:
        raise CapacityError("nothing is left")

    async def release(self, request: NodeRequest, cluster: Cluster) -> bool:
        return True


@pytest.mark.slow  # silence takes its time
def test_a_watch_that_stays_silent_fails_the_liveness_probe_and_is_named(
    world: World, kaito_cluster: FakeCluster
) -> None:
    port = _free_port()
    settings = Settings(namespaces=("default",), health_port=port, watch_silence_seconds=3)
    world.start(settings=settings)
    world.wait("every watch is open", lambda: kaito_cluster.open_watches >= 8)
    # Nothing happens in this cluster: what keeps the operator alive are watches that are opened anew.
    count = len(_watches(kaito_cluster, "/services$"))
    world.wait("opened anew", lambda: len(_watches(kaito_cluster, "/services$")) >= count + 4)
    assert _read(port, "/livez") == (200, "ok")
    silent = kaito_cluster.fail("WATCH", "/services$", manner="hang", times=10**9)
    world.wait("it fails", lambda: _read(port, "/livez")[0] == 503)
    text = _read(port, "/livez")[1]
    assert re.fullmatch(r"watches are silent: /api/v1/namespaces/default/services for \d+ s", text)
    assert _value(_scrape(port), "kaito_watches_silent") == 1
    silent.times = 0


def test_a_webhook_that_has_ended_fails_the_liveness_probe(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(_: Webhook) -> None:
        return None

    monkeypatch.setattr(Webhook, "run", run)
    port = _free_port()
    world.start(settings=Settings(namespaces=(world.namespace,), health_port=port, webhook_port=_free_port()))
    assert _read(port, "/livez") == (503, "the task 'webhook' has ended")


def test_a_hook_that_blocks_fails_no_probe_and_is_named_in_the_status(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "PluginThread", lambda: PluginThread(0.5))
    leave = threading.Event()

    class Policy:
        @hookimpl
        def kaito_validate_workspace(self, workspace: Workspace) -> list[FieldError]:
            if workspace.name == "blocked":
                leave.wait()
            return []

    port = _free_port()
    try:
        world.start(plugins=(Policy(),), settings=Settings(namespaces=(world.namespace,), health_port=port))
        world.apply(workspace("blocked"))
        failed = world.wait_reason("blocked", "WorkspaceSucceeded", "BackendError")
        assert "plugin 'plugin-0': kaito_validate_workspace did not return within" in failed["message"]
        assert _read(port, "/livez") == (200, "ok")
    finally:
        leave.set()
    world.apply(workspace("other"))
    world.wait_state("other", "Ready")


def _watches(cluster: FakeCluster, path: str) -> list[RequestRecord]:
    return [record for record in cluster.requests(manager="kopf", path=path) if "watch" in record.query]


@pytest.mark.slow  # silence takes its time
def test_watches_of_a_type_that_is_gone_are_not_missed(world: World, kaito_cluster: FakeCluster) -> None:
    port = _free_port()
    kaito_cluster.apply(nodeclaim_crd())
    settings = Settings(namespaces=("default",), health_port=port, watch_silence_seconds=3, resync_seconds=1)
    world.start(settings=settings)
    world.wait("it is watched", lambda: _watches(kaito_cluster, "/nodeclaims$"))
    kaito_cluster.delete("customresourcedefinitions", "nodeclaims.karpenter.sh", "")
    count = len(_watches(kaito_cluster, "/services$"))
    world.wait("some time has passed", lambda: len(_watches(kaito_cluster, "/services$")) >= count + 6)
    assert _read(port, "/livez") == (200, "ok")


def test_it_is_not_ready_while_the_api_cannot_be_reached(world: World, kaito_cluster: FakeCluster) -> None:
    port = _free_port()
    world.start(settings=Settings(namespaces=("default",), health_port=port))
    world.wait("it is ready", lambda: _read(port, "/readyz") == (200, "ok"))
    down = kaito_cluster.fail("GET", "/version$", 503, times=10**9, message="etcd is gone")
    status, text = _read(port, "/readyz")
    assert status == 503 and text.startswith("the Kubernetes API cannot be reached: ") and "etcd is gone" in text
    assert _read(port, "/livez") == (200, "ok")  # a new start would not help
    down.times = 0
    assert _read(port, "/readyz") == (200, "ok")


def test_it_is_not_ready_before_the_caches_are_filled(world: World, kaito_cluster: FakeCluster) -> None:
    port = _free_port()
    down = kaito_cluster.fail("GET", "/deployments$", 500, times=10**9)
    world.launch(settings=Settings(namespaces=("default",), health_port=port))
    world.wait("it answers", lambda: _answers(port))
    assert _read(port, "/readyz") == (503, "the caches are not filled yet")
    down.times = 0
    world.wait("it is ready", lambda: _read(port, "/readyz") == (200, "ok"))


def _answers(port: int) -> bool:
    try:
        return _read(port, "/livez")[0] == 200
    except OSError:
        return False


def test_other_namespaces_are_out_of_sight(world: World, kaito_cluster: FakeCluster) -> None:
    kaito_cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    world.start()
    elsewhere = workspace("w")
    elsewhere["metadata"]["namespace"] = "other"
    kaito_cluster.apply(elsewhere)
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    assert kaito_cluster.get("deployments", "w", "other") is None
    assert not kaito_cluster.requests(manager="kaito-operator", path="^/api/v1/pods$")
    watches = [record for record in kaito_cluster.requests(manager="kopf", path="/pods$") if "watch" in record.query]
    assert {record.query["labelSelector"] for record in watches} == {"kaito.sh/workspace"}


def test_two_namespaces_do_not_mix(world: World, kaito_cluster: FakeCluster) -> None:
    kaito_cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "other"}})
    world.start(settings=Settings(health_port=0))
    elsewhere = workspace("w", adapters=[adapter("style")])
    elsewhere["metadata"]["namespace"] = "other"
    kaito_cluster.apply(elsewhere)
    world.apply(workspace("w"))
    world.wait_state("w", "Ready")
    world.wait(
        "the other is ready",
        lambda: ((kaito_cluster.get("workspaces", "w", "other") or {}).get("status") or {}).get("state") == "Ready",
    )
    assert world.existing("workspaces", "w")["status"]["adapters"] == []


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        run_operator(Settings(health_port=0), PluginRegistry(), kubeconfig=str(tmp_path / "nowhere.yaml"))


def test_a_taken_port_is_reported_at_once(world: World) -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        with pytest.raises(OSError, match="address already in use"):
            world.start(settings=Settings(health_port=listener.getsockname()[1]))


@pytest.mark.slow  # a Python process starts
def test_the_log_has_one_line_for_each_change_and_none_for_none(
    world: World, kaito_cluster: FakeCluster, tmp_path: Path
) -> None:
    config = tmp_path / "kaito.yaml"
    config.write_text("namespaces: [default]\nresync_seconds: 1\n")
    with Process(kaito_cluster, tmp_path, config=config) as process:
        world.apply(workspace("w", "smollm2-135m-instruct"))
        world.apply(workspace("bad", "no-such-preset"))
        world.wait_state("w", "Ready")
        world.wait_state("bad", "Failed")
        of_w = world.wait("it is told", lambda: _told(process, "w", "WorkspaceSucceeded"))
        changes = [(line["action"], line["object"], line["reason"]) for line in of_w if "object" in line]
        assert changes == [
            ("Create", "ConfigMap/w-serving", "Missing"),
            ("Create", "Service/w", "Missing"),
            ("Create", "Deployment/w", "Missing"),
        ]
        assert all(line["namespace"] == "default" and line["level"] == "INFO" for line in of_w)
        of_bad = [line for line in process.lines() if line.get("workspace") == "bad"]
        assert [(line["level"], line["action"], line["reason"]) for line in of_bad] == [
            ("WARNING", "Status", "UnknownPreset")
        ]
        said = [(line.get("workspace"), line["message"]) for line in process.lines()]
        assert len(set(said)) == len(said), "\n".join(map(str, said))
        # Passes of which nothing comes, and several resyncs.
        lists = len(kaito_cluster.requests(manager="kaito-operator", path="/pods$"))
        kaito_cluster.add_node("another", gpus=0)
        world.wait("listed anew", lambda: len(kaito_cluster.requests(path="/pods$")) > lists + 3)
        assert len(process.lines()) == len(said)
        # kopf's own lines are of the same form.
        kaito_cluster.fail("WATCH", "/services$", 500)
        kaito_cluster.drop_watches()
        world.wait("kopf says so", lambda: any(line["logger"].startswith("kopf.") for line in process.errors()))
        process.send(signal.SIGTERM)
        assert process.wait() == 0


def _told(process: Process, name: str, reason: str) -> list[dict[str, Any]]:
    """Returns the lines about a Workspace once one of them has a reason."""
    lines = [line for line in process.lines() if line.get("workspace") == name]
    return lines if any(line["reason"] == reason for line in lines) else []


@pytest.mark.slow  # a Python process starts
def test_last_words_are_in_the_log(kaito_cluster: FakeCluster, tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        with Process(kaito_cluster, tmp_path, health_port=listener.getsockname()[1]) as process:
            assert process.wait() == 1
            (last,) = process.errors()
            assert last["level"] == "CRITICAL" and "address already in use" in last["message"]


@pytest.mark.slow  # a Python process starts
def test_sigterm_ends_the_process(world: World, kaito_cluster: FakeCluster, tmp_path: Path) -> None:
    program = (
        "import sys, threading\n"
        "from kaito_core.controller.app import run_operator\n"
        "from kaito_core.plugins import PluginRegistry\n"
        "from kaito_core.settings import Settings\n"
        "settings = Settings(health_port=0)\n"
        "run_operator(settings, PluginRegistry.discover(settings), kubeconfig=sys.argv[1], stop=threading.Event())\n"
    )
    kubeconfig = str(kaito_cluster.kubeconfig(tmp_path / "kubeconfig"))
    process = subprocess.Popen([sys.executable, "-c", program, kubeconfig], env=dict(os.environ))
    try:
        kaito_cluster.apply(workspace("w", "smollm2-135m-instruct"))
        world.wait("it is served", lambda: world.get("deployments", "w"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.wait()
