"""World: a cluster and its operator, with what users, kubelets and runtimes do. It asserts nothing."""

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kaito_core.api import KubeObject, ModelPreset, NodeProvider
from kaito_core.api.workload import WORKSPACE_LABEL
from kaito_core.controller.app import run_operator
from kaito_core.controller.records import Key
from kaito_core.controller.work.loop import Outcome
from kaito_core.plugins import PluginRegistry
from kaito_core.settings import Settings
from kaito_gpu_azure.provider import AzureProvider
from kaito_gpu_onprem.provider import OnPremProvider
from kaito_testing.registry import example_preset, registry_with
from kaito_testing.world.client import KubeClient
from kaito_testing.world.cluster import FakeCluster, PodFailure
from kaito_testing.world.faulty_cluster import FaultyCluster
from scenarios.support.pods import Hands, Runtimes

__all__ = ["PRESETS", "World", "adapter", "conditions", "running", "workspace"]

PRESETS: tuple[ModelPreset, ...] = (
    example_preset(name="on-cpu", gpus=0, gpu_memory_gib=0),
    example_preset(name="on-gpu"),
    example_preset(name="on-many", gpus=2, gpu_memory_gib=100, distributed=True),
)

_NODECLAIMS = "nodeclaims.karpenter.sh"


def workspace(name: str, preset: str = "on-cpu", **parts: Any) -> KubeObject:
    """Returns a Workspace.

    Args:
        name: Its name.
        preset: Name of its preset.
        **parts: resource, adapters, blends, preset_options, annotations; inference, in place of preset and adapters.
    """
    inference: KubeObject = {"preset": {"name": preset}}
    if options := parts.get("preset_options"):
        inference["preset"]["presetOptions"] = options
    for key in ("adapters", "blends"):
        if key in parts:
            inference[key] = parts[key]
    metadata: KubeObject = {"name": name}
    if annotations := parts.get("annotations"):
        metadata["annotations"] = annotations
    document: KubeObject = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": metadata,
        "inference": parts.get("inference", inference),
    }
    if resource := parts.get("resource"):
        document["resource"] = resource
    return document


def adapter(name: str, strength: object = "1.0", image: str = "") -> KubeObject:
    """Returns an adapter of a Workspace, from an image."""
    return {"source": {"name": name, "image": image or f"registry.example/{name}:1"}, "strength": strength}


def conditions(document: KubeObject | None) -> dict[str, KubeObject]:
    """Returns a Workspace's conditions by type."""
    return {item["type"]: item for item in ((document or {}).get("status") or {}).get("conditions", [])}


class Passes:
    """Counts the passes that wrote no object but the status, by Workspace."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def note(self, key: Key, outcome: Outcome) -> None:
        """Notes a pass."""
        if not outcome.acted:
            self.seen.append(key[1])

    def of(self, name: str) -> int:
        """Returns the number of passes for a Workspace."""
        return self.seen.count(name)


class World:
    """One namespace of a cluster with an operator that watches it.

    Args:
        cluster: The cluster, with the CRD of Workspaces.
        folder: Where kubeconfigs are written.
        namespace: An empty namespace, the only one that the operator watches.
        operator: A client with the rights that the operator has; None for those of `cluster`.
    """

    def __init__(
        self, cluster: FaultyCluster, folder: Path, namespace: str = "default", *, operator: KubeClient | None = None
    ) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.runtimes, self._hands = Runtimes(cluster), Hands(cluster, namespace)
        self.passes = Passes()
        self.added_nodes: set[str] = set()
        self._kubeconfig = str((operator or cluster).kubeconfig(folder / f"kubeconfig-{uuid.uuid4().hex[:8]}"))
        self._stop, self._ready = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    # The operator

    def start(
        self,
        *,
        providers: Sequence[NodeProvider] | None = None,
        settings: Settings | None = None,
        plugins: Sequence[object] = (),
    ) -> None:
        """Starts an operator in a thread, and waits until it is ready."""
        self.launch(providers=providers, settings=settings, plugins=plugins)
        self.wait_ready()

    def launch(
        self,
        *,
        providers: Sequence[NodeProvider] | None = None,
        settings: Settings | None = None,
        plugins: Sequence[object] = (),
    ) -> None:
        """Starts an operator in a thread, and does not wait: one of several stands by until it leads."""
        settings = settings or Settings(namespaces=(self.namespace,), health_port=0)
        installed = (OnPremProvider(), AzureProvider()) if providers is None else providers
        registry = registry_with(PRESETS, installed, settings=settings)
        for number, plugin in enumerate(plugins):
            registry.register(plugin, f"plugin-{number}")
        self.passes = Passes()
        self._stop, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(settings, registry, self._ready, self._stop))
        self._thread.start()

    def wait_ready(self) -> None:
        """Waits until the operator is ready, and raises what ended it before."""
        while not self._ready.wait(0.05):
            if self._failure is not None:
                self.join()

    @property
    def is_ready(self) -> bool:
        """Whether the operator is ready."""
        return self._ready.is_set()

    def _run(self, settings: Settings, registry: PluginRegistry, ready: threading.Event, stop: threading.Event) -> None:
        try:
            run_operator(
                settings,
                registry,
                kubeconfig=self._kubeconfig,
                ready=ready,
                stop=stop,
                ask=self.runtimes.ask,
                on_pass=self.passes.note,
            )
        except BaseException as error:  # `join` raises it
            self._failure = error

    def stop(self) -> None:
        """Stops the operator."""
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Waits until the operator has ended, and raises the error that ended it."""
        if self._thread is not None:
            self._thread.join()
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def clean(self) -> None:
        """Removes what nothing else removes without an operator: finalizers, nodes, and pods on them."""
        for document in self.cluster.list("workspaces", self.namespace):
            unbound = {"metadata": {"finalizers": None}}
            self.cluster.patch("workspaces", document["metadata"]["name"], unbound, self.namespace)
            self.delete("workspaces", document["metadata"]["name"])
        for kind in ("deployments", "statefulsets"):
            for workload in self.cluster.list(kind, self.namespace):
                self.delete(kind, workload["metadata"]["name"])
        self.cluster.wait("the pods are gone", self._end_pods)
        for claim in self.cluster.list(_NODECLAIMS):
            self.cluster.patch(_NODECLAIMS, claim["metadata"]["name"], {"metadata": {"finalizers": None}}, "")
        if self.cluster.delete("customresourcedefinitions", _NODECLAIMS, ""):
            self.cluster.wait("no NodeClaims", lambda: not self.cluster.get("customresourcedefinitions", _NODECLAIMS))
        for name in self.added_nodes:
            self.cluster.delete("nodes", name, "")

    def _end_pods(self) -> bool:
        for pod in self.cluster.list("pods", self.namespace):
            self.cluster.delete("pods", pod["metadata"]["name"], self.namespace, grace_seconds=0)
        return not any(self.cluster.list(kind, self.namespace) for kind in ("replicasets", "pods"))

    # Users

    def apply(self, document: KubeObject, **options: Any) -> KubeObject:
        """Applies a document in the namespace."""
        placed = {**document, "metadata": {**document["metadata"], "namespace": self.namespace}}
        return self.cluster.apply(placed, **options)

    def get(self, kind: str, name: str) -> KubeObject | None:
        """Returns an object of the namespace."""
        return self.cluster.get(kind, name, self.namespace)

    def existing(self, kind: str, name: str) -> KubeObject:
        """Waits until an object of the namespace exists, and returns it."""
        found: KubeObject = self.wait(f"{kind} {name}", lambda: self.get(kind, name))
        return found

    def patch(self, kind: str, name: str, patch: object, **options: Any) -> KubeObject:
        """Patches an object of the namespace."""
        return self.cluster.patch(kind, name, patch, self.namespace, **options)

    def delete(self, kind: str, name: str) -> bool:
        """Deletes an object of the namespace."""
        return self.cluster.delete(kind, name, self.namespace)

    def events(self, name: str) -> list[KubeObject]:
        """Returns the events about a Workspace."""
        found = self.cluster.list("events", self.namespace)
        about = ("Workspace", name)
        return [e for e in found if (e["involvedObject"]["kind"], e["involvedObject"]["name"]) == about]

    def pods(self, name: str) -> list[KubeObject]:
        """Returns the pods of a Workspace that are not being deleted."""
        pods = self.cluster.list("pods", self.namespace, f"{WORKSPACE_LABEL}={name}")
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def fail_pods(self, failure: PodFailure | None) -> None:
        """Lets all pods fail from now on, running ones included, or with None get ready."""
        self._hands.fail(failure)
        if isinstance(self.cluster, FakeCluster) and self.cluster.has_workloads:
            self.cluster.run_workloads(*([failure] if failure is not None else []))

    # Waiting

    def wait(self, what: str, condition: Callable[[], Any]) -> Any:
        """Waits until a condition holds, and meanwhile does by hand what the cluster has no controllers for."""

        def look() -> Any:
            if not self.cluster.has_workloads:
                self._hands.run()
            return condition()

        # A real garbage collector looks for new types, such as ours, every half minute.
        return self.cluster.wait(what, look, timeout_seconds=30 if self.cluster.has_workloads else 90)

    def wait_state(self, name: str, state: str) -> KubeObject:
        """Waits until the status of a Workspace is of its newest generation and has a state."""

        def reached() -> KubeObject | None:
            document = self.get("workspaces", name)
            status = (document or {}).get("status") or {}
            current = document is not None and status.get("observedGeneration") == document["metadata"]["generation"]
            return document if current and status.get("state") == state else None

        found: KubeObject = self.wait(f"{name} is {state}", reached)
        return found

    def wait_reason(self, name: str, condition: str, reason: str) -> KubeObject:
        """Waits until a condition of a Workspace has a reason, and returns the condition."""
        found: KubeObject = self.wait(
            f"{name}: {condition} is {reason}",
            lambda: (
                item
                if (item := conditions(self.get("workspaces", name)).get(condition)) and item["reason"] == reason
                else None
            ),
        )
        return found

    def cause_pass(self, name: str) -> None:
        """Causes one more pass for a Workspace, by a label that means nothing."""
        before = self.passes.of(name)
        label = {"metadata": {"labels": {"looked": uuid.uuid4().hex[:8]}}}
        self.cluster.patch("workspaces", name, label, self.namespace)
        self.wait(f"a pass for {name}", lambda: self.passes.of(name) > before)

    def snapshot(self) -> dict[tuple[str, str], str]:
        """Returns the resource versions of all objects that the operator may write."""
        kinds = ("workspaces", "deployments", "statefulsets", "services", "poddisruptionbudgets")
        kinds += ("configmaps", "pods", "events")
        return {
            (kind, item["metadata"]["name"]): item["metadata"]["resourceVersion"]
            for kind in kinds
            for item in self.cluster.list(kind, self.namespace)
            if kind != "events" or item["involvedObject"]["kind"] == "Workspace"
        }


@contextlib.contextmanager
def running(world: World, **options: Any) -> Iterator[World]:
    """Runs an operator for as long as the block."""
    world.start(**options)
    try:
        yield world
    finally:
        world.stop()
