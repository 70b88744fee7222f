"""Stand-ins for scenarios: for the runtimes in pods, and for controllers and kubelets that a cluster lacks."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime

from kaito_core.api import KubeObject
from kaito_core.api.conditions import timestamp
from kaito_core.api.serving import SERVING_KEY
from kaito_core.api.workload import SERVING_GENERATION_ANNOTATION, WORKSPACE_LABEL, serving_name
from kaito_core.controller.work.replicas import parse_report
from kaito_core.reconcile.observed import AdapterReport, fetched_adapters
from kaito_testing.world.client import STRATEGIC, KubeClient
from kaito_testing.world.pods import PodFailure, node_for, pod_status

__all__ = ["QUOTA", "Hands", "Runtimes"]

QUOTA = "team-quota"  #: name of the ResourceQuota by which a real server refuses pods


class Runtimes:
    """Stands in for the runtimes in the pods: they serve what is mounted and what containers have fetched.

    As by a real kubelet, a mounted ConfigMap is read again when an annotation of the pod changes.

    Attributes:
        asked: How often a runtime was asked.
        broken: Adapters that cannot be loaded, with the reason.
        fetching: Adapters whose containers have not ended.
    """

    def __init__(self, cluster: KubeClient) -> None:
        self._cluster = cluster
        self._mounted: dict[str, tuple[str, KubeObject]] = {}  # pod uid -> annotation then, configuration
        self.asked = 0
        self.broken: dict[str, str] = {}
        self.fetching: set[str] = set()

    async def ask(self, pod: KubeObject) -> AdapterReport | None:
        """Answers as GET /v1/adapters of the pod does."""
        self.asked += 1
        return await asyncio.to_thread(self._answer, pod)

    def _answer(self, pod: KubeObject) -> AdapterReport | None:
        metadata = pod["metadata"]
        mark = metadata.get("annotations", {}).get(SERVING_GENERATION_ANNOTATION, "")
        if self._mounted.get(metadata["uid"], ("?", {}))[0] != mark:
            name = serving_name(metadata["labels"][WORKSPACE_LABEL])
            config_map = self._cluster.get("configmaps", name, metadata["namespace"])
            if config_map is None:
                return None
            self._mounted[metadata["uid"]] = (mark, json.loads(config_map["data"][SERVING_KEY]))
        config, fetched = self._mounted[metadata["uid"]][1], fetched_adapters(pod)
        rows = []
        for served in config.get("adapters", []):
            there = served["path"] in fetched and served["name"] not in self.fetching
            state = "Ready" if there else "Loading"
            if served["name"] in self.broken:
                state = "Failed"
            digest = "sha256:" + hashlib.sha256(served["path"].encode()).hexdigest()
            rows.append(
                {
                    "name": served["name"],
                    "strength": served["strength"],
                    "state": state,
                    "digest": digest if state == "Ready" else None,
                    "message": self.broken.get(served["name"], ""),
                }
            )
        return parse_report({"generation": config["generation"], "data": rows})


class Hands:
    """Does what kubelets do, and what controllers and a scheduler do if the API server has none."""

    def __init__(self, cluster: KubeClient, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._done: dict[str, PodFailure | None] = {}  # uid of a pod -> what its status says
        self._failure: PodFailure | None = None  # how pods fail

    def fail(self, failure: PodFailure | None) -> None:
        """Lets pods fail from now on, running ones included, or with None get ready."""
        self._failure = failure
        if not self._cluster.has_controllers or self._cluster.has_workloads:
            return
        if failure is not None and failure.reason == "FailedCreate":
            self._cluster.apply(self._quota())
            self._cluster.wait("it is counted", lambda: (self._found_quota() or {}).get("status", {}).get("hard"))
        elif self._found_quota() is not None:
            self._cluster.delete("resourcequotas", QUOTA, self._namespace)

    def _quota(self) -> KubeObject:
        metadata = {"name": QUOTA, "namespace": self._namespace}
        return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": {"pods": "0"}}}

    def _found_quota(self) -> KubeObject | None:
        return self._cluster.get("resourcequotas", QUOTA, self._namespace)

    def _failure_of(self, pod: KubeObject) -> PodFailure | None:
        return self._failure if self._failure is not None and self._failure.fits(pod) else None

    def run(self) -> None:
        """Gives each workload of a Workspace its pods, ready or failing."""
        if self._cluster.has_controllers:
            for pod in self._cluster.list("pods", self._namespace, WORKSPACE_LABEL):
                self._run(pod)
            return
        for plural, kind in (("deployments", "Deployment"), ("statefulsets", "StatefulSet")):
            for owner in self._cluster.list(plural, self._namespace, WORKSPACE_LABEL):
                self._serve(plural, {**owner, "apiVersion": "apps/v1", "kind": kind})

    def _run(self, pod: KubeObject) -> None:
        """Does what the kubelet of a pod's node does."""
        if not pod["spec"].get("nodeName"):
            return
        name = pod["metadata"]["name"]
        if "deletionTimestamp" in pod["metadata"]:
            self._cluster.delete("pods", name, self._namespace, grace_seconds=0)
        else:
            self._settle(pod)

    def _serve(self, kind: str, owner: KubeObject) -> None:
        name, spec = owner["metadata"]["name"], owner["spec"]
        wanted = [f"{name}-{index}" for index in range(spec["replicas"])]
        for pod_name in wanted:
            pod = self._cluster.get("pods", pod_name, self._namespace)
            self._settle(pod or self._cluster.create(self._pod(owner, pod_name)))
        counts = dict.fromkeys(("replicas", "updatedReplicas"), len(wanted))
        counts |= {"readyReplicas": 0 if self._failure else len(wanted)}
        self._patch_status(kind, name, {"observedGeneration": owner["metadata"]["generation"], **counts})

    def _settle(self, pod: KubeObject) -> None:
        """Writes the status of a pod, once."""
        failure, uid = self._failure_of(pod), pod["metadata"]["uid"]
        if self._done.get(uid, ...) != failure:
            self._patch_status("pods", pod["metadata"]["name"], self._status(pod, failure))
            self._done[uid] = failure

    def _status(self, pod: KubeObject, failure: PodFailure | None) -> KubeObject:
        words = failure.message if failure is not None and failure.reason == "Unschedulable" else ""
        status = pod_status(pod, timestamp(datetime.now(UTC)), failure, unschedulable=words, ready_node=True)
        conditions = status.setdefault("conditions", [])
        if not any(item["type"] == "Ready" for item in conditions):  # conditions are merged by type
            conditions.append({"type": "Ready", "status": "False"})
        return status

    def _pod(self, owner: KubeObject, name: str) -> KubeObject:
        template = owner["spec"]["template"]
        reference = {key: owner[key] for key in ("apiVersion", "kind")}
        reference |= {"name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"], "controller": True}
        metadata = {**template["metadata"], "name": name, "namespace": self._namespace, "ownerReferences": [reference]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        node, _ = node_for(pod, self._cluster.list("nodes"), self._cluster.list("pods"))
        return {**pod, "spec": {**pod["spec"], "nodeName": node}} if node else pod

    def _patch_status(self, kind: str, name: str, status: KubeObject) -> None:
        patch = {"status": status}
        self._cluster.patch(kind, name, patch, self._namespace, content_type=STRATEGIC, subresource="status")
