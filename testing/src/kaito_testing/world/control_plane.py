"""Real control planes for tests: kube-apiserver with etcd, and clients of existing clusters."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import subprocess
import time
import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from kaito_testing.kube.errors import ApiError
from kaito_testing.world.client import KubeClient

__all__ = ["ControlPlane", "client_of_kubeconfig"]

TOKEN = "kaito-tests"
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
START_SECONDS = 60.0


class ControlPlane:
    """etcd and kube-apiserver on local ports, with a fixed token for a cluster administrator.

    If kube-controller-manager and kube-scheduler are in the same folder, they run too: workloads get pods, pods get
    nodes, and dependents are collected. There are no kubelets.

    Args:
        assets: Folder of the programs.
        folder: Where their data, keys and logs go.
    """

    def __init__(self, assets: Path, folder: Path) -> None:
        self._assets, self._folder = assets, folder
        self._has_controllers = all((assets / program).exists() for program in CONTROLLERS)
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> KubeClient:
        try:
            return self._start()
        except BaseException:
            self._stop()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> KubeClient:
        key, tokens = self._folder / "service-accounts.key", self._folder / "tokens.csv"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        tokens.write_text(f'{TOKEN},kaito-tests,kaito-tests,"system:masters"\n')
        etcd_port, peer_port, port = _free_ports(3)
        self._run("etcd", etcd_flags(self._folder / "etcd", etcd_port, peer_port))
        flags = apiserver_flags(self._folder / "certificates", key, tokens, etcd_port, port)
        if not self._has_controllers:
            flags.append("--disable-admission-plugins=ServiceAccount")  # no controller makes service accounts for pods
        self._run("kube-apiserver", flags)
        controlled = self._has_controllers
        client = KubeClient(
            f"https://127.0.0.1:{port}", token=TOKEN, has_gc=controlled, has_controllers=controlled, has_workloads=False
        )
        self._wait(client)
        if controlled:
            kubeconfig = client.kubeconfig(self._folder / "controllers.kubeconfig")
            for program in CONTROLLERS:
                self._run(program, controller_flags(program, kubeconfig, key))
        return client

    def _run(self, program: str, flags: Sequence[str]) -> None:
        log = (self._folder / f"{program}.log").open("wb")
        with log:
            command = [str(self._assets / program), *flags]
            self._running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=_environment()))

    def _wait(self, client: KubeClient) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(urllib.error.URLError, ApiError, OSError):
                if client.get("namespaces", "default", "") is not None:
                    return
            ended = [process for process in self._running if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = "\n".join(log.read_text(errors="replace")[-2000:] for log in self._folder.glob("*.log"))
                raise RuntimeError(
                    f"the control plane did not start within {START_SECONDS} s; its logs end in:\n{logs}"
                )
            time.sleep(0.2)

    def _stop(self) -> None:
        for process in reversed(self._running):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def etcd_flags(data: Path, port: int, peer_port: int) -> list[str]:
    """A single, unsafe and fast etcd."""
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    return [
        f"--data-dir={data}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
    ]


def apiserver_flags(certificates: Path, key: Path, tokens: Path, etcd_port: int, port: int) -> list[str]:
    """An API server that makes its own certificate."""
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        f"--cert-dir={certificates}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        "--authorization-mode=RBAC",
        f"--token-auth-file={tokens}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-cluster-ip-range=10.96.0.0/16",
    ]


def controller_flags(program: str, kubeconfig: Path, key: Path) -> list[str]:
    """Flags of a controller manager or scheduler that serves nothing, and accepts nodes without heartbeats."""
    flags = [f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0"]
    flags += ["--kube-api-qps=500", "--kube-api-burst=1000"]  # deleting the tests' namespaces would use up the default
    if program == "kube-controller-manager":
        flags += [f"--service-account-private-key-file={key}", "--node-monitor-grace-period=24h"]
    return flags


def _environment() -> dict[str, str]:
    """The environment, with less garbage collection: with the default it takes a sixth of the CPU time."""
    return {"GOGC": "400", **os.environ}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [int(item.getsockname()[1]) for item in sockets]


def client_of_kubeconfig(path: Path, folder: Path) -> KubeClient:
    """Returns a client for the current context of a kubeconfig. A cluster with nodes is assumed to run workloads.

    Args:
        path: The kubeconfig.
        folder: Where inline certificates are written.
    """
    config = yaml.safe_load(path.read_text())
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"])["user"]

    def file(fields: Mapping[str, Any], name: str) -> str:
        if f"{name}-data" not in fields:
            found = fields.get(name, "")
            return str(path.parent / found) if found else ""
        written = folder / name
        written.write_bytes(base64.b64decode(fields[f"{name}-data"]))
        written.chmod(0o600)
        return str(written)

    client = KubeClient(
        cluster["server"],
        token=user.get("token", ""),
        ca_file=file(cluster, "certificate-authority"),
        client_cert=(file(user, "client-certificate"), file(user, "client-key")),
    )
    client.has_controllers = client.has_workloads = bool(client.list("nodes"))
    return client


def _named(entries: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)
