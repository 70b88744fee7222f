"""Simulated controllers, scheduler and kubelet: Deployments and StatefulSets get pods, pods get nodes and statuses."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kaito_testing.kube.errors import ApiError
from kaito_testing.kube.objects.options import DeleteOptions, WriteOptions
from kaito_testing.kube.objects.owners import Owners
from kaito_testing.kube.objects.verbs import Verbs
from kaito_testing.kube.resources import BUILTIN, BY_KIND, Resource
from kaito_testing.world.changed_objects import ChangedObjects
from kaito_testing.world.pods import PodFailure, is_ready, node_for, pod_status

__all__ = ["PodFailure", "Workloads"]

Object = dict[str, Any]

_PODS, _NODES = BY_KIND["Pod"], BY_KIND["Node"]
_EVENTS = next(resource for resource in BUILTIN if resource.kind == "Event" and not resource.group)
_DEPLOYMENTS, _REPLICASETS, _STATEFULSETS = (BY_KIND[kind] for kind in ("Deployment", "ReplicaSet", "StatefulSet"))
_MANAGER = WriteOptions("kube-controller-manager")
_STATUS = WriteOptions("kube-controller-manager", subresource="status")
_AT_ONCE = DeleteOptions(grace_seconds=0)


class Workloads:
    """Brings workloads and pods to the state that their specs ask for. Starts with `run`."""

    def __init__(self, verbs: Verbs, loop: asyncio.AbstractEventLoop) -> None:
        self._verbs, self._store, self._loop = verbs, verbs.store, loop
        self._failures: Sequence[PodFailure] = ()
        self._scheduled = False
        self._refused: dict[str, str] = {}  # uid of a controller -> why its pods cannot be created
        self._owners, self._changed = Owners(self._store), ChangedObjects(self._store)
        self._store.listeners += [self._owners.notice, self._changed.notice, lambda _: self._wake()]

    def run(self, failures: Sequence[PodFailure]) -> None:
        """Runs, or goes on, with these failures."""
        self._failures = failures
        self._changed.add_all()
        self._wake()

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._pass)

    def _pass(self) -> None:
        self._scheduled = False
        looks = {
            _DEPLOYMENTS: self._deployment,
            _REPLICASETS: self._replicaset,
            _STATEFULSETS: self._statefulset,
            _PODS: self._pod,
        }
        for resource, key in self._changed.take():
            obj = self._store.objects(resource.storage).get(key)
            if obj is not None and (resource is _PODS or "deletionTimestamp" not in obj["metadata"]):
                looks[resource](obj)

    def _owned(self, kind: str, owner: Object) -> list[Object]:
        """The objects of a kind that name an owner, by name."""
        return self._owners.of_kind(owner["metadata"]["uid"], kind)

    # Controllers

    def _deployment(self, deployment: Object) -> None:
        spec, name = deployment["spec"], deployment["metadata"]["name"]
        revision = _hash(spec["template"])
        replicasets = self._owned("ReplicaSet", deployment)
        current = next((item for item in replicasets if item["metadata"]["name"] == f"{name}-{revision}"), None)
        for old in replicasets:
            if old is not current and old["spec"]["replicas"]:
                self._change(_REPLICASETS, old, {"spec": {**old["spec"], "replicas": 0}})
        if current is None:
            self._create(_REPLICASETS, deployment, f"{name}-{revision}", self._replicaset_spec(spec, revision))
        elif current["spec"]["replicas"] != spec["replicas"]:
            self._change(_REPLICASETS, current, {"spec": {**current["spec"], "replicas": spec["replicas"]}})
        pods = [pod for item in replicasets for pod in self._owned("Pod", item)]
        live = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        updated = [pod for pod in live if pod["metadata"]["labels"].get("pod-template-hash") == revision]
        ready = sum(map(is_ready, live))
        status: Object = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(live),
            "updatedReplicas": len(updated),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(spec["replicas"] - ready, 0),
        }
        status = {key: value for key, value in status.items() if value or key == "observedGeneration"}
        enough = ready >= spec["replicas"] - _unavailable(spec)
        complete = sum(map(is_ready, updated)) == spec["replicas"] == len(live)
        status["conditions"] = self._conditions(
            deployment,
            {
                "Available": (enough, "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"),
                "Progressing": (True, "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated"),
            },
        )
        status["conditions"] += self._replica_failure(current) if current is not None else []
        self._set_status(_DEPLOYMENTS, deployment, status)

    def _replicaset_spec(self, spec: Object, revision: str) -> Object:
        template = json.loads(json.dumps(spec["template"]))
        template.setdefault("metadata", {}).setdefault("labels", {})["pod-template-hash"] = revision
        labels = {**(spec["selector"].get("matchLabels") or {}), "pod-template-hash": revision}
        return {"replicas": spec["replicas"], "selector": {"matchLabels": labels}, "template": template}

    def _replicaset(self, replicaset: Object) -> None:
        pods = [pod for pod in self._owned("Pod", replicaset) if "deletionTimestamp" not in pod["metadata"]]
        wanted, name = replicaset["spec"]["replicas"], replicaset["metadata"]["name"]
        for pod in pods[wanted:]:
            self._delete(pod)
        for _ in range(wanted - len(pods)):
            self._create_pod(replicaset, {"generateName": f"{name}-"}, {})
        kept = pods[:wanted]
        status = {
            "observedGeneration": replicaset["metadata"]["generation"],
            "replicas": len(kept),
            "readyReplicas": sum(map(is_ready, kept)),
        }
        if failure := self._replica_failure(replicaset):
            status["conditions"] = failure
        self._set_status(_REPLICASETS, replicaset, status)

    def _replica_failure(self, replicaset: Object) -> list[Object]:
        """The condition of a ReplicaSet whose pods are refused; its Deployment has it too."""
        message = self._refused.get(replicaset["metadata"]["uid"])
        if message is None:
            return []
        return [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}]

    def _statefulset(self, statefulset: Object) -> None:
        spec, name = statefulset["spec"], statefulset["metadata"]["name"]
        revision = f"{name}-{_hash(spec['template'])}"
        pods = {pod["metadata"]["name"]: pod for pod in self._owned("Pod", statefulset)}
        names = [f"{name}-{index}" for index in range(spec["replicas"])]
        for pod_name, pod in pods.items():
            outdated = pod["metadata"]["labels"].get("controller-revision-hash") != revision
            on_delete = spec["updateStrategy"]["type"] == "OnDelete"
            if pod_name not in names or (outdated and not on_delete):
                self._delete(pod)
        in_order = spec["podManagementPolicy"] == "OrderedReady"
        for index, pod_name in enumerate(names):
            if pod_name not in pods:
                labels = {
                    "controller-revision-hash": revision,
                    "statefulset.kubernetes.io/pod-name": pod_name,
                    "apps.kubernetes.io/pod-index": str(index),
                }
                extra = {"hostname": pod_name, "subdomain": spec["serviceName"]}
                self._create_pod(statefulset, {"name": pod_name, "labels": labels}, extra)
            if in_order and not (pod_name in pods and is_ready(pods[pod_name])):
                break
        live = [pod for pod in pods.values() if "deletionTimestamp" not in pod["metadata"]]
        ready = sum(map(is_ready, live))
        updated = [pod for pod in live if pod["metadata"]["labels"].get("controller-revision-hash") == revision]
        status: Object = {
            "observedGeneration": statefulset["metadata"]["generation"],
            "replicas": len(live),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "currentReplicas": len(updated),
            "updatedReplicas": len(updated),
            "currentRevision": revision,
            "updateRevision": revision,
            "collisionCount": 0,
        }
        self._set_status(_STATEFULSETS, statefulset, status)

    # Scheduler and kubelet

    def _pod(self, pod: Object) -> None:
        nodes = {name: node for (_, name), node in sorted(self._store.objects(_NODES.storage).items())}
        if "deletionTimestamp" in pod["metadata"]:
            self._delete(pod, _AT_ONCE)
            return
        failure = next((item for item in self._failures if item.fits(pod)), None)
        name = pod["spec"].get("nodeName", "")
        if name and name not in nodes:
            self._delete(pod, _AT_ONCE)  # as the pod garbage collector does for pods of deleted nodes
            return
        reason = ""
        if not name:
            if failure is not None and failure.reason == "Unschedulable":
                reason = (
                    failure.message or f"0/{len(nodes)} nodes are available: {len(nodes)} Insufficient nvidia.com/gpu."
                )
            else:
                name, reason = node_for(pod, list(nodes.values()), self._store.objects(_PODS.storage).values())
            if name:
                pod = self._bind(pod, name)
        ready_node = name in nodes and is_ready(nodes[name])
        status = pod_status(pod, self._store.now(), failure, unschedulable=reason, ready_node=ready_node)
        # The API server sets the QoS class when the pod is created, and the kubelet does not change it.
        self._set_status(_PODS, pod, {**status, "qosClass": pod["status"]["qosClass"]})

    def _bind(self, pod: Object, node: str) -> Object:
        """Gives a pod its node; the rules for updates do not apply, as to the subresource `binding` of a real API."""
        meta = pod["metadata"]
        stored = self._store.stored(_PODS, meta["namespace"], meta["name"])
        bound = {**stored, "spec": {**stored["spec"], "nodeName": node}}
        return self._store.commit(_PODS, stored, bound)

    # Writes

    def _create(self, resource: Resource, owner: Object, name: str, spec: Object) -> None:
        meta = {
            "name": name,
            "labels": spec["template"]["metadata"]["labels"],
            "ownerReferences": [_reference(owner)],
        }
        self._write(resource, owner["metadata"]["namespace"], {"metadata": meta, "spec": spec})

    def _create_pod(self, owner: Object, meta: Mapping[str, Any], extra: Mapping[str, Any]) -> None:
        template = owner["spec"]["template"]
        labels = {**(template.get("metadata", {}).get("labels") or {}), **meta.get("labels", {})}
        annotations = template.get("metadata", {}).get("annotations")
        pod_meta = {**meta, "labels": labels, "ownerReferences": [_reference(owner)]}
        if annotations:
            pod_meta["annotations"] = annotations
        pod = {"metadata": pod_meta, "spec": {**template["spec"], **extra}}
        uid, name = owner["metadata"]["uid"], meta.get("name", f"{meta.get('generateName', '')}xxxxx")
        refusal = next((item for item in self._failures if item.reason == "FailedCreate" and item.fits(pod)), None)
        if refusal is not None:
            self._refused[uid] = f'pods "{name}" is forbidden: {refusal.message}'
            if owner["kind"] == "StatefulSet":  # it has no condition for this
                self._write(_EVENTS, owner["metadata"]["namespace"], _failed_create(owner, self._refused[uid]))
            return
        self._refused.pop(uid, None)
        self._write(_PODS, owner["metadata"]["namespace"], pod)

    def _write(self, resource: Resource, namespace: str, obj: Object) -> None:
        try:
            self._verbs.create(resource, namespace, obj, _MANAGER)
        except ApiError as error:
            if error.code not in (403, 409):  # the namespace is being deleted, or the name is still taken
                raise

    def _change(self, resource: Resource, obj: Object, changes: Mapping[str, Any]) -> None:
        meta = obj["metadata"]
        self._verbs.patch(resource, meta["namespace"], meta["name"], lambda live: {**live, **changes}, _MANAGER)

    def _set_status(self, resource: Resource, obj: Object, status: Object) -> None:
        meta = obj["metadata"]
        live = self._store.objects(resource.storage).get((meta.get("namespace", ""), meta["name"]))
        if live is not None and live.get("status") != status:
            change = {"status": status}
            self._verbs.patch(resource, meta["namespace"], meta["name"], lambda old: {**old, **change}, _STATUS)

    def _delete(self, pod: Object, options: DeleteOptions | None = None) -> None:
        meta = pod["metadata"]
        if (meta["namespace"], meta["name"]) in self._store.objects(_PODS.storage):
            self._verbs.delete(_PODS, meta["namespace"], meta["name"], options or DeleteOptions())

    def _conditions(self, obj: Object, wanted: Mapping[str, tuple[bool, str]]) -> list[Object]:
        old = {item["type"]: item for item in obj.get("status", {}).get("conditions") or ()}
        return [
            {**before, "status": status, "reason": reason}
            if (before := old.get(kind, {})).get("status") == (status := str(holds))
            else {"type": kind, "status": status, "reason": reason, "lastTransitionTime": self._store.now()}
            for kind, (holds, reason) in wanted.items()
        ]


def _hash(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


def _failed_create(owner: Object, message: str) -> Object:
    about = {key: owner["metadata"][key] for key in ("name", "namespace", "uid")}
    return {
        "metadata": {"name": f"{owner['metadata']['name']}.failedcreate"},
        "involvedObject": {"apiVersion": owner["apiVersion"], "kind": owner["kind"], **about},
        "type": "Warning",
        "reason": "FailedCreate",
        "message": message,
    }


def _reference(owner: Object) -> Object:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _unavailable(spec: Object) -> int:
    """How many replicas of an available Deployment may be missing, rounded down as the API does."""
    value = (spec["strategy"].get("rollingUpdate") or {}).get("maxUnavailable", 0)
    if isinstance(value, str):
        return int(spec["replicas"] * int(value.rstrip("%")) / 100)
    return int(value)
