"""A small world for plans: objects in dictionaries, and what the API server, the workload controllers and the pods
would do with them. Pure: nothing is waited for and nothing is patched.
"""

import copy
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kaito_core.api import KubeObject, ModelPreset, NodeState, parse_workspace
from kaito_core.api.serving import SERVING_KEY
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.actions import AddContainer, Annotate, Apply, Delete
from kaito_core.reconcile.desired import desired
from kaito_core.reconcile.observed import AdapterReport, Observed
from kaito_core.reconcile.plan import Plan, plan
from kaito_core.reconcile.resolve import resolve
from kaito_core.settings import Settings
from kaito_testing.registry import example_preset, registry_with

PRESETS = (
    example_preset(name="one-gpu"),
    example_preset(name="cpu", gpus=0, gpu_memory_gib=0),
    example_preset(name="four-gpus", gpus=4, gpu_memory_gib=100),
    example_preset(name="spread", gpus=2, gpu_memory_gib=40, distributed=True),
)
NODES = ("node-a", "node-b", "node-c")


class World:
    """One Workspace and all that belongs to it.

    Attributes:
        document: The Workspace as the API has it; `edit` changes it as a user does.
        nodes: What the provider says.
        children: The objects, by kind and name.
        pods: The pods, by name.
        answering: Whether pods report what they have applied.
    """

    def __init__(
        self, inference: dict[str, Any] | None = None, *, presets: Iterable[ModelPreset] = PRESETS, **resource: Any
    ) -> None:
        self.registry: PluginRegistry = registry_with(presets)
        self.settings = Settings()
        self.nodes = NodeState(NODES)
        self.children: dict[tuple[str, str], KubeObject] = {}
        self.pods: dict[str, KubeObject] = {}
        self.answering = True
        self.now = datetime(2024, 1, 1, tzinfo=UTC)
        self._serial = 0
        self.document: KubeObject = {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": "demo", "namespace": "models", "uid": "uid-demo", "generation": 1},
            "resource": resource,
            "inference": inference or {"preset": {"name": "one-gpu"}},
        }

    def edit(self, **parts: Any) -> None:
        """Changes parts of `inference`."""
        self.document["inference"] = {**self.document["inference"], **parts}
        self.document["metadata"]["generation"] += 1

    def observed(self) -> Observed:
        answering = self.answering and ("ConfigMap", "demo-serving") in self.children
        reports = {name: self._report() for name in self.pods} if answering else {}
        return Observed(tuple(self.children.values()), tuple(self.pods.values()), reports)

    def plan(self) -> Plan:
        """Plans, and changes nothing."""
        resolved = resolve(parse_workspace(self.document), self.registry)
        kind = "StatefulSet" if resolved.preset is not None and resolved.preset.distributed else "Deployment"
        live = self.children.get((kind, "demo"))
        return plan(desired(resolved, self.nodes, self.settings, live), self.observed(), self.now)

    def step(self) -> Plan:
        """Plans, does what is planned and writes the status; a minute passes."""
        planned = self.plan()
        for action in planned.actions:
            self._do(action)
        self.document["status"] = copy.deepcopy(planned.status)
        self.now += timedelta(minutes=1)
        return planned

    def settle(self) -> None:
        """Lets everything happen that happens by itself, until a plan has nothing to do."""
        for _ in range(6):
            planned = self.step()
            self.run_pods()
            if not planned.actions and self.plan().status == self.document["status"]:
                return
        raise AssertionError(f"does not settle: {self.plan()}")

    def run_pods(self) -> None:
        """Makes pods of the workload's template and lets them get ready.

        Pods of a Deployment's other template go; those of a StatefulSet stay until they are deleted.
        """
        for (kind, name), live in self.children.items():
            if kind not in ("Deployment", "StatefulSet"):
                continue
            spec, generation = live["spec"], live["metadata"]["generation"]
            revision = f"{name}-{generation}"
            form = name if kind == "StatefulSet" else revision
            wanted = [f"{form}-{index}" for index in range(spec["replicas"])]
            self.pods = {pod: found for pod, found in self.pods.items() if pod in wanted}
            for pod in wanted:
                if pod not in self.pods:
                    self.pods[pod] = self._pod(pod, live, revision)
            live["status"] = {
                "observedGeneration": generation,
                "replicas": spec["replicas"],
                "readyReplicas": spec["replicas"],
                "updatedReplicas": [_revision(pod) for pod in self.pods.values()].count(revision),
                "updateRevision": revision,
            }

    def child(self, kind: str, name: str = "demo") -> KubeObject:
        return self.children[kind, name]

    def actions(self, planned: Plan | None = None) -> list[str]:
        """What a plan does, as words."""
        planned = planned or self.plan()
        words = {
            Apply: lambda a: f"apply {a.manifest['kind']} {a.manifest['metadata']['name']}",
            Annotate: lambda a: f"annotate {a.pod}",
            AddContainer: lambda a: f"add {a.container['name'].rpartition('-')[0]} to {a.pod}",
            Delete: lambda a: f"delete {a.kind} {a.name}",
        }
        return [words[type(action)](action) for action in planned.actions]

    def condition(self, kind: str, planned: Plan | None = None) -> tuple[str, str, str]:
        """Status, reason and message of a condition in a plan."""
        conditions = (planned or self.plan()).status["conditions"]
        (found,) = [condition for condition in conditions if condition["type"] == kind]
        return found["status"], found["reason"], found["message"]

    def _do(self, action: Apply | Annotate | AddContainer | Delete) -> None:
        if isinstance(action, Apply):
            self._apply(copy.deepcopy(action.manifest))
        elif isinstance(action, Delete) and action.kind == "Pod":
            assert self.pods.pop(action.name)["metadata"]["uid"] == action.uid
        elif isinstance(action, Delete):
            assert self.children[action.kind, action.name]["metadata"]["uid"] == action.uid
            del self.children[action.kind, action.name]
        elif isinstance(action, Annotate):
            assert self.pods[action.pod]["metadata"]["uid"] == action.uid
            self.pods[action.pod]["metadata"].setdefault("annotations", {})[action.annotation] = action.value
        else:
            self.pods[action.pod]["spec"].setdefault("ephemeralContainers", []).append(action.container)

    def _apply(self, manifest: KubeObject) -> None:
        key = (manifest["kind"], manifest["metadata"]["name"])
        before = self.children.get(key)
        metadata = manifest["metadata"]
        metadata["uid"], metadata["generation"] = f"uid-{key}", 1
        _add_defaults(manifest)
        if before is not None:
            metadata["uid"] = before["metadata"]["uid"]
            metadata["generation"] = before["metadata"]["generation"] + (before.get("spec") != manifest.get("spec"))
            if "status" in before:
                manifest["status"] = before["status"]
        self.children[key] = manifest

    def _pod(self, name: str, owner: KubeObject, revision: str) -> KubeObject:
        self._serial += 1
        template, reference = owner["spec"]["template"], {"kind": owner["kind"], "uid": owner["metadata"]["uid"]}
        labels = {**template["metadata"]["labels"], "controller-revision-hash": revision}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "labels": labels,
                "name": name,
                "uid": f"uid-pod-{self._serial}",
                "ownerReferences": [reference],
            },
            "spec": {**copy.deepcopy(template["spec"]), **self._place()},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }

    def _place(self) -> dict[str, str]:
        """Where a scheduler puts the next pod: on the first node that has none."""
        used = [pod["spec"].get("nodeName") for pod in self.pods.values()]
        free = [name for name in self.nodes.ready if name not in used]
        return {"nodeName": free[0]} if free else {}

    def _report(self) -> AdapterReport:
        """What a runtime says that has read its configuration and applied all of it."""
        config = json.loads(self.child("ConfigMap", "demo-serving")["data"][SERVING_KEY])
        rows = [{"name": a["name"], "strength": a["strength"], "state": "Ready"} for a in config["adapters"]]
        return AdapterReport(config["generation"], tuple(rows))


def _revision(pod: KubeObject) -> str:
    return str(pod["metadata"]["labels"]["controller-revision-hash"])


def _add_defaults(manifest: KubeObject) -> None:
    """Adds some of what an API server adds, and orders and writes things as it does."""
    if manifest["kind"] == "Service":
        manifest["spec"].setdefault("clusterIP", "10.0.0.1")
        manifest["spec"].update(sessionAffinity="None", ipFamilies=["IPv4"])
    if manifest["kind"] in ("Deployment", "StatefulSet"):
        manifest["spec"].update(revisionHistoryLimit=10)
        spec = manifest["spec"]["template"]["spec"]
        spec.update(restartPolicy="Always", dnsPolicy="ClusterFirst", schedulerName="default-scheduler")
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            container.update(terminationMessagePath="/dev/termination-log")
            container.setdefault("terminationMessagePolicy", "File")
            container.setdefault("imagePullPolicy", "IfNotPresent")
            container.setdefault("resources", {})
    manifest["metadata"].update(resourceVersion="1", creationTimestamp="2024-01-01T00:00:00Z")


@pytest.fixture(scope="session")
def world() -> Callable[..., World]:
    """Makes worlds."""
    return World


@pytest.fixture(scope="session")
def adapters() -> Callable[..., dict[str, Any]]:
    """Makes the part of `inference` that names a preset and adapters: image adapters by name and strength."""

    def make(preset: str = "one-gpu", /, *more: dict[str, Any], **strengths: float) -> dict[str, Any]:
        listed: list[dict[str, Any]] = [
            {"source": {"name": name, "image": f"registry.example/{name}:1"}, "strength": strength}
            for name, strength in strengths.items()
        ]
        return {"preset": {"name": preset}, "adapters": [*listed, *more]}

    return make
