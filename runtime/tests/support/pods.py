"""Servers of several processes, started by the very command that the operator writes into a pod."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from live import WAIT_SECONDS, until

from kaito_core.api import FetchStep, Workload, Workspace
from kaito_core.api.serving import ADAPTERS_PATH, CONFIG_FILE, WEIGHTS_PATH
from kaito_core.reconcile.objects.podspec import pod_template

GPUS = 2


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pod_command(
    *, node: int, nodes: int, gpus: int, model: Path, config: Path, adapters: Path, port: int, rdzv: int
) -> list[str]:
    """Returns the command of the runtime's container, with this machine's paths and ports for the pod's."""
    workspace = Workspace.model_validate(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": "many", "namespace": "default"},
            "resource": {"labelSelector": {}},
            "inference": {"preset": {"name": "many"}},
        }
    )
    workload = Workload(
        kind="StatefulSet" if nodes > 1 else "Deployment",
        replicas=nodes,
        image="runtime",
        model="many",
        gpus=gpus,
        memory_gib=1,
        disk_gib=1,
        weights=FetchStep(command=("true",)),
        adapters={},
        startup_seconds=600,
    )
    container = pod_template(workspace, workload)["spec"]["containers"][0]
    places = {CONFIG_FILE: str(config), WEIGHTS_PATH: str(model), ADAPTERS_PATH: str(adapters)}
    places |= {f"$({variable['name']})": variable["value"] for variable in container["env"]}
    places |= {"$(KAITO_HOST)": "127.0.0.1", "$(KAITO_PORT)": str(port)}
    words = [places.get(word, word) for word in container["command"]]
    # The first pod's name resolves in a cluster alone.
    # Here every node would take itself for the first.
    first = f",is_host={int(node == 0)}"
    words = [word + first if word.startswith("--rdzv-conf=") else word for word in words]
    words = [
        re.sub(r"=many-0\.many-headless\.default\.svc\.cluster\.local:\d+$", f"=localhost:{rdzv}", w) for w in words
    ]
    assert words[0] == "torchrun"
    # torchrun numbers nodes by their addresses, which are the pods' names in a cluster, and one and the same here.
    own = [f"--local-addr=127.0.0.{node + 1}"] if nodes > 1 else []
    return [
        str(Path(sys.executable).parent / "torchrun"),
        *own,
        *words[1:],
        "--cache-gib",
        "0.02",
        "--step-tokens",
        "64",
    ]


class Torchrun:
    """One torchrun and its ranks: the container of one pod."""

    def __init__(self, command: Sequence[str]) -> None:
        self.log: list[str] = []
        self._process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONFAULTHANDLER": "1"},
        )
        assert self._process.stderr is not None
        self._reader = threading.Thread(target=self.log.extend, args=(self._process.stderr,))
        self._reader.start()

    @property
    def text(self) -> str:
        return "".join(self.log)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def ranks(self) -> dict[int, int]:
        """Returns the process id of each rank on this node."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = re.search(r"^PPid:\s+(\d+)$", (folder / "status").read_text(), re.M)
                environ = (folder / "environ").read_bytes()
            except OSError:
                continue
            if parent and int(parent[1]) == self._process.pid and (rank := re.search(rb"\0RANK=(\d+)\0", environ)):
                found[int(rank[1])] = int(folder.name)
        return found

    def wait(self) -> int:
        code = self._process.wait(WAIT_SECONDS)
        self._reader.join()
        assert self._process.stderr is not None
        self._process.stderr.close()
        return code

    def end(self) -> None:
        if self.running:
            self.signal(signal.SIGTERM)
        try:
            self.wait()
        except subprocess.TimeoutExpired:
            self.signal(signal.SIGKILL)
            raise


class Pods:
    """A server of several processes on one or more nodes, its configuration, and its adapters.

    Attributes:
        urls: Of each node; the first one's serves.
        restarts: How often the container of each node was started again.
    """

    def __init__(self, model: Path, folder: Path, *, nodes: int = 1, gpus: int = GPUS) -> None:
        self.folder = folder
        self.file = folder / "serving.json"
        self.generation = 0
        ports, rdzv = [free_port() for _ in range(nodes)], free_port()
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.adapters = [folder / f"adapters-{node}" for node in range(nodes)]
        for adapters in self.adapters:
            adapters.mkdir(exist_ok=True)
        if not self.file.exists():
            self.configure()
        self._commands = [
            pod_command(
                node=node,
                nodes=nodes,
                gpus=gpus,
                model=model,
                config=self.file,
                adapters=self.adapters[node],
                port=ports[node],
                rdzv=rdzv,
            )
            for node in range(nodes)
        ]
        self.nodes = [Torchrun(command) for command in self._commands]
        self.restarts = [0] * nodes

    def replace(self, *nodes: int) -> None:
        """Deletes pods; each gets a successor of the same name as soon as it is gone."""
        for node in nodes:
            self.nodes[node].signal(signal.SIGTERM)
        for node in nodes:
            self.nodes[node].wait()
            self.nodes[node] = Torchrun(self._commands[node])

    def recover(self) -> None:
        """Waits until the server is whole again, and starts ended containers again meanwhile, as the kubelet does."""

        def found() -> bool:
            for node, container in enumerate(self.nodes):
                if not container.running:
                    container.wait()
                    self.nodes[node] = Torchrun(self._commands[node])
                    self.restarts[node] += 1
            return all(self.answers("/readyz", node) == 200 for node in range(len(self.nodes)))

        until(found, "whole again")

    def configure(self, **adapters: Any) -> None:
        self.generation += 1
        listed = [{"name": name, "strength": strength} for name, strength in adapters.items()]
        body = {"generation": self.generation, "model": {"name": "tiny", "dtype": "float32"}, "adapters": listed}
        # As the kubelet does it: nobody reads half of a file.
        written = self.file.with_suffix(".new")
        written.write_text(json.dumps(body))
        written.replace(self.file)

    def get(self, path: str, node: int = 0) -> httpx.Response:
        with self._explained():
            return httpx.get(self.urls[node] + path, timeout=WAIT_SECONDS)

    def post(self, path: str, body: Any, node: int = 0) -> httpx.Response:
        with self._explained():
            return httpx.post(self.urls[node] + path, json=body, timeout=WAIT_SECONDS)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Adds the logs of the processes to the error, where no server responds."""
        try:
            yield
        except httpx.TransportError as error:
            logs = "".join(node.text for node in self.nodes)
            raise AssertionError(f"no server responds: {error!r}; the processes' logs:\n{logs}") from error

    def answers(self, path: str, node: int = 0) -> int:
        """Returns a status, 0 where nobody listens."""
        try:
            return httpx.get(self.urls[node] + path, timeout=WAIT_SECONDS).status_code
        except httpx.HTTPError:
            return 0

    def ready(self) -> None:
        def found() -> bool:
            assert all(node.running for node in self.nodes), "".join(node.text for node in self.nodes)
            return self.answers("/readyz") == 200

        until(found, "ready")

    def applied(self) -> dict[str, tuple[str, str]]:
        """Returns state and message of each adapter, none while an older configuration is applied."""
        body = self.get("/v1/adapters").json()
        if body["generation"] != self.generation:
            return {}
        return {entry["name"]: (entry["state"], entry["message"]) for entry in body["data"]}

    def loaded(self, *names: str) -> None:
        until(lambda: self.applied() == dict.fromkeys(names, ("Ready", "")), f"{names} are loaded")


@contextmanager
def pods(model: Path, folder: Path, **options: Any) -> Iterator[Pods]:
    """Starts a server, and ends its processes with the block."""
    server = Pods(model, folder, **options)
    try:
        yield server
    finally:
        if not all(node.running for node in server.nodes):  # why, where a test did not mean it
            print("".join(node.text for node in server.nodes))
        for node in server.nodes:
            if node.running:
                node.signal(signal.SIGTERM)
        for node in server.nodes:
            node.end()
