"""The admission webhook over real HTTPS: asked by the emulated API on each write, and by hand."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cryptography import x509
from typer.testing import CliRunner

from kaito_core.cli.app import app
from kaito_core.controller.cluster import KubernetesCluster, connect
from kaito_core.controller.install.manifests import installation
from kaito_core.controller.plugin_thread import PluginThread
from kaito_core.controller.watch.cache import Cache
from kaito_core.controller.webhook.certificates import make_bundle
from kaito_core.controller.webhook.objects import (
    PATH,
    SECRETS,
    WEBHOOK_NAME,
    WEBHOOKS,
    configuration_name,
    service_hosts,
)
from kaito_core.controller.webhook.server import Webhook
from kaito_core.errors import ClusterError
from kaito_core.settings import Settings
from kaito_testing.kube.errors import ApiError
from kaito_testing.registry import registry_with
from kaito_testing.world.client import KubeClient
from kaito_testing.world.cluster import FakeCluster
from scenarios.support.world import PRESETS, World, adapter, workspace

NAMESPACE = "kaito-system"
START = datetime.now(UTC)  # TLS goes by the machine's own clock


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Replica:
    """A webhook in a thread of its own, with a clock that the test sets."""

    def __init__(self, cluster: KubeClient, folder: Path) -> None:
        self.now = START
        self._kubeconfig = str(cluster.kubeconfig(folder / f"kubeconfig-{id(self)}"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.call(self._begin())

    async def _begin(self) -> None:
        self._cluster: KubernetesCluster = await connect(Cache(()), (), self._kubeconfig)
        self.port, self.plugins = free_port(), PluginThread()
        self.webhook = Webhook(
            self._cluster, registry_with(PRESETS), self.plugins, NAMESPACE, self.port, now=lambda: self.now
        )

    def call(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(30)

    def refresh(self) -> None:
        self.call(self.webhook.refresh())

    def close(self) -> None:
        self.call(self.webhook.close())
        self.plugins.close()
        self.call(self._cluster.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def cluster(kaito_cluster: FakeCluster) -> FakeCluster:
    """A cluster to which `kaito install --webhook` was applied."""
    manifests = installation(namespace=NAMESPACE, watches=(), env={}, webhook=True)
    for manifest in manifests:
        kaito_cluster.apply(manifest, manager="kubectl")
    return kaito_cluster


@pytest.fixture
def replica(cluster: FakeCluster, tmp_path: Path) -> Iterator[Replica]:
    made = Replica(cluster, tmp_path)
    made.refresh()
    cluster.serve_service(NAMESPACE, WEBHOOK_NAME, made.port)
    yield made
    made.close()


def secret(cluster: FakeCluster) -> dict[str, str]:
    found = cluster.get("secrets", WEBHOOK_NAME, NAMESPACE) or {}
    return dict(found.get("data") or {})


def trusted(cluster: FakeCluster) -> str:
    found = cluster.get("validatingwebhookconfigurations", configuration_name(NAMESPACE), "") or {}
    return str(found["webhooks"][0]["clientConfig"].get("caBundle", ""))


def put(cluster: FakeCluster, document: dict[str, Any]) -> None:
    """Replaces a stored Workspace."""
    old = cluster.get("workspaces", document["metadata"]["name"]) or {}
    document = {**document, "metadata": {**old["metadata"], **document["metadata"]}}
    cluster.request("PUT", f"/apis/kaito.sh/v1beta1/namespaces/default/workspaces/{old['metadata']['name']}", document)


def post(port: int, body: bytes, path: str = PATH) -> tuple[int, str]:
    """What the endpoint answers to a body; the certificate is looked at elsewhere."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = urllib.request.Request(f"https://127.0.0.1:{port}{path}", data=body, method="POST")
    try:
        with urllib.request.urlopen(request, context=context, timeout=10) as found:
            return found.status, found.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def shown(port: int) -> x509.Certificate:
    """The certificate that new connections see."""
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(("127.0.0.1", port)).encode())


def test_the_api_server_trusts_it_and_asks_before_each_write(cluster: FakeCluster, replica: Replica) -> None:
    cluster.create(workspace("good", adapters=[adapter("style")]))
    unknown = workspace("unknown", "no-such-preset")
    with pytest.raises(ApiError, match=r'kaito\.sh" denied the request: inference\.preset\.name') as caught:
        cluster.create(unknown)
    assert caught.value.code == 422
    with pytest.raises(ApiError, match="denied the request"):
        cluster.apply(unknown)
    assert cluster.get("workspaces", "unknown") is None
    with pytest.raises(ApiError, match="denied the request"):
        put(cluster, workspace("good", "no-such-preset"))
    with pytest.raises(ApiError, match=r"denied the request: inference\.blends"):
        cluster.patch("workspaces", "good", {"inference": {"blends": [{"name": "mix", "strengths": {"other": 1}}]}})


def test_an_old_fault_stays_editable_and_deletable(cluster: FakeCluster, replica: Replica) -> None:
    hooks = cluster.get("validatingwebhookconfigurations", configuration_name(NAMESPACE), "") or {}
    cluster.delete("validatingwebhookconfigurations", configuration_name(NAMESPACE), "")
    cluster.create(workspace("old", "gone-with-an-upgrade"))
    kept = {key: value for key, value in hooks["metadata"].items() if key in ("name", "labels")}
    cluster.create({**hooks, "metadata": kept})
    put(cluster, workspace("old", "gone-with-an-upgrade", resource={"count": 2}))
    cluster.patch("workspaces", "old", {"metadata": {"finalizers": ["kaito.sh/nodes"]}})
    with pytest.raises(ApiError, match="denied the request"):
        put(cluster, workspace("old", "another-unknown"))
    cluster.delete("workspaces", "old")
    cluster.patch("workspaces", "old", {"metadata": {"finalizers": []}})
    assert cluster.get("workspaces", "old") is None


def test_an_operator_that_is_down_blocks_no_write(cluster: FakeCluster, replica: Replica) -> None:
    cluster.serve_service(NAMESPACE, WEBHOOK_NAME, free_port())
    cluster.create(workspace("unknown", "no-such-preset"))


def test_the_certificate_is_made_once_and_shared_by_replicas(
    cluster: FakeCluster, replica: Replica, tmp_path: Path
) -> None:
    before, authority = secret(cluster), trusted(cluster)
    assert before["ca.crt"] == authority
    second = Replica(cluster, tmp_path)
    try:
        second.refresh()
        replica.refresh()
        assert (secret(cluster), trusted(cluster)) == (before, authority)
        assert shown(second.port) == shown(replica.port)
    finally:
        second.close()
    names = shown(replica.port).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert tuple(names.get_values_for_type(x509.DNSName)) == service_hosts(NAMESPACE)


def test_it_is_renewed_before_it_ends_and_no_request_fails(
    cluster: FakeCluster, replica: Replica, tmp_path: Path
) -> None:
    first, authority = shown(replica.port), trusted(cluster)
    replica.now = START + timedelta(days=59)
    replica.refresh()
    assert shown(replica.port) == first
    replica.now = START + timedelta(days=70)
    second = Replica(cluster, tmp_path)
    try:
        replica.refresh()
        renewed = shown(replica.port)
        assert renewed.not_valid_after_utc - first.not_valid_after_utc == timedelta(days=70)
        assert trusted(cluster) == authority
        second.now = replica.now
        second.refresh()
        assert shown(second.port) == renewed, "the other replica takes what is there"
    finally:
        second.close()


def test_two_replicas_that_renew_at_once_end_with_one_certificate(cluster: FakeCluster, tmp_path: Path) -> None:
    replicas = [Replica(cluster, tmp_path) for _ in range(2)]
    try:
        threads = [threading.Thread(target=replica.refresh) for replica in replicas]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for replica in replicas:
            replica.refresh()  # the next look
        assert shown(replicas[0].port) == shown(replicas[1].port)
        assert trusted(cluster) == secret(cluster)["ca.crt"]
    finally:
        for replica in replicas:
            replica.close()


def test_one_that_comes_second_takes_what_is_there(cluster: FakeCluster, tmp_path: Path) -> None:
    replica = Replica(cluster, tmp_path)
    try:
        cluster.fail("POST", "/secrets", 409)
        replica.refresh()
        assert base64.b64decode(secret(cluster)["ca.crt"]) == base64.b64decode(trusted(cluster))
        cluster.fail("PUT", "/secrets", 409)
        replica.now = START + timedelta(days=70)
        replica.refresh()
        assert shown(replica.port) == x509.load_pem_x509_certificate(base64.b64decode(secret(cluster)["tls.crt"]))
    finally:
        replica.close()


def test_an_api_that_fails_is_asked_again(cluster: FakeCluster, tmp_path: Path) -> None:
    replica = Replica(cluster, tmp_path)
    try:
        cluster.fail("GET", "/secrets", 500)
        with pytest.raises(ClusterError):
            replica.refresh()
        replica.refresh()
        assert trusted(cluster)
    finally:
        replica.close()


def test_a_certificate_of_the_users_own_is_shown_and_left_alone(cluster: FakeCluster, tmp_path: Path) -> None:
    data = make_bundle(service_hosts(NAMESPACE), START).to_data()
    del data["ca.key"]
    metadata = {"name": WEBHOOK_NAME, "namespace": NAMESPACE}
    cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    replica = Replica(cluster, tmp_path)
    try:
        replica.now = START + timedelta(days=80)
        replica.refresh()
        expected = x509.load_pem_x509_certificate(base64.b64decode(data["tls.crt"]))
        assert shown(replica.port) == expected
        assert (secret(cluster), trusted(cluster)) == (data, data["ca.crt"])
    finally:
        replica.close()


def test_a_secret_that_cannot_be_used_is_not_overwritten(cluster: FakeCluster, tmp_path: Path) -> None:
    data = {"tls.crt": base64.b64encode(b"mine").decode()}
    metadata = {"name": WEBHOOK_NAME, "namespace": NAMESPACE}
    cluster.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    replica = Replica(cluster, tmp_path)
    try:
        with pytest.raises(Exception, match=r"must hold tls\.crt and tls\.key that belong together"):
            replica.refresh()
        assert secret(cluster) == data
    finally:
        replica.close()


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, "JSON"),
        (b"\xff\xfe", 400, "JSON"),
        (b"{", 400, "JSON"),
        (b"[" * 100_000, 400, "JSON"),
        (b"3", 400, "AdmissionReview"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {}}', 400, "request.uid"),
    ],
    ids=["nothing", "no text", "half", "deep", "a number", "no uid"],
)
def test_malformed_reviews_get_an_answer(replica: Replica, body: bytes, status: int, words: str) -> None:
    found = post(replica.port, body)
    assert found[0] == status and words in found[1]
    review = {"uid": "u", "operation": "DELETE"}
    good = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": review}
    code, text = post(replica.port, json.dumps(good).encode())
    assert (code, json.loads(text)["response"]) == (200, {"uid": "u", "allowed": True}), "and it lives on"


def test_large_reviews_are_read_and_other_paths_are_not(replica: Replica) -> None:
    big = {"operation": "DELETE", "uid": "u", "oldObject": {"x": "y" * (3 << 20)}}
    review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": big}
    assert post(replica.port, json.dumps(review).encode())[0] == 200
    assert post(replica.port, b"{}", "/other")[0] == 404


def test_a_replica_that_stands_by_answers_too(cluster: FakeCluster, world: World, tmp_path: Path) -> None:
    def settings(port: int) -> Settings:
        return Settings(
            health_port=0,
            leader_election=True,
            leader_election_namespace="default",
            lease_seconds=15,
            webhook_port=port,
        )

    ports = [free_port(), free_port()]
    world.start(settings=settings(ports[0]))
    standby = World(cluster, tmp_path)
    try:
        standby.launch(settings=settings(ports[1]))
        for port in ports:
            cluster.wait("an answer", lambda port=port: _answers(port))
        assert not standby.is_ready
        cluster.serve_service(NAMESPACE, WEBHOOK_NAME, ports[1])
        with pytest.raises(ApiError, match="denied the request"):
            cluster.create(workspace("unknown", "no-such-preset"))
    finally:
        standby.stop()


def _answers(port: int) -> bool:
    try:
        return post(port, b"{}")[0] == 400
    except OSError:
        return False


def test_the_manifests_are_valid_and_the_webhook_is_off_by_default() -> None:
    more, fewer = (installation(namespace=NAMESPACE, watches=(), env={}, webhook=webhook) for webhook in (True, False))
    for manifest in more:
        if manifest["kind"] != "CustomResourceDefinition":
            kubernetes_validate.validate(manifest, "1.36", strict=True)
    kinds = [manifest["kind"] for manifest in more]
    assert kinds == [*(manifest["kind"] for manifest in fewer), "Service", "ValidatingWebhookConfiguration"]
    (hook,) = more[-1]["webhooks"]
    assert hook["failurePolicy"] == "Ignore"
    assert hook["rules"][0]["operations"] == ["CREATE", "UPDATE"]
    assert not [item for item in fewer if "webhook" in item["metadata"]["name"]]
    (deployment,) = [item for item in fewer if item["kind"] == "Deployment"]
    assert "webhook" not in str(deployment).lower()


def test_the_command_line_prints_it_where_it_is_asked_for() -> None:
    found = CliRunner().invoke(app, ["install", "--webhook", "--namespace", "serving"])
    documents = list(yaml.safe_load_all(found.stdout))
    assert documents[-1]["webhooks"][0]["clientConfig"]["service"]["namespace"] == "serving"
    (deployment,) = [document for document in documents if document["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    env = {item["name"]: item["value"] for item in container["env"] if "value" in item}
    assert {name for name in env if "WEBHOOK" in name} == {"KAITO_WEBHOOK_PORT", "KAITO_WEBHOOK_NAMESPACE"}
    read = Settings.from_env(env)
    assert read.webhook_namespace == "serving"
    assert read.webhook_port in [port["containerPort"] for port in container["ports"]]


def test_the_rules_of_rbac_cover_what_it_writes() -> None:
    manifests = installation(namespace=NAMESPACE, watches=(), env={}, webhook=True)
    rules = {manifest["kind"]: manifest["rules"] for manifest in manifests if "rules" in manifest}
    secrets = [rule for rule in rules["Role"] if rule["resources"] == [SECRETS.plural]]
    assert [(rule["verbs"], rule.get("resourceNames")) for rule in secrets] == [
        (["create"], None),
        (["get", "update"], [WEBHOOK_NAME]),
    ]
    written = [
        rule for rule in rules["ClusterRole"] if rule["resources"] == [WEBHOOKS.plural] and "update" in rule["verbs"]
    ]
    assert [(rule["verbs"], rule["resourceNames"]) for rule in written] == [
        (["get", "update"], [configuration_name(NAMESPACE)])
    ]
    assert not [rule for rule in rules["ClusterRole"] if "secrets" in rule["resources"]], "no Secret of the cluster's"
