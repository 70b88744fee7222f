"""The defaults of built-in types: one function for each kind, which changes the object that it is given."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from typing import Any

__all__ = ["fill"]

Object = dict[str, Any]


def fill(kind: tuple[str, str], obj: Object) -> None:
    """Fills the defaults into an object.

    Args:
        kind: (group, kind).
        obj: A private copy of the object.
    """
    filler = _FILLERS.get(kind)
    if filler is not None:
        filler(obj)


def _set(target: Object, **values: Any) -> None:
    for name, value in values.items():
        if target.get(name) is None:
            target[name] = value


def _container(container: Object) -> None:
    image = str(container.get("image", ""))
    latest = "@" not in image and (":" not in image.rsplit("/", 1)[-1] or image.endswith(":latest"))
    _set(
        container,
        imagePullPolicy="Always" if latest else "IfNotPresent",
        resources={},
        terminationMessagePath="/dev/termination-log",
        terminationMessagePolicy="File",
    )
    for port in container.get("ports") or ():
        _set(port, protocol="TCP")
    for variable in container.get("env") or ():
        field_ref = (variable.get("valueFrom") or {}).get("fieldRef")
        if field_ref is not None:
            _set(field_ref, apiVersion="v1")
    for probe_name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(probe_name)
        if probe is None:
            continue
        _set(probe, timeoutSeconds=1, periodSeconds=10, successThreshold=1, failureThreshold=3)
        if probe.get("httpGet") is not None:
            _set(probe["httpGet"], path="/", scheme="HTTP")
    limits = container["resources"].get("limits")
    if limits:
        requests = container["resources"].setdefault("requests", {})
        _set(requests, **limits)


def _pod_spec(spec: Object) -> None:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(field) or ():
            _container(container)
    _set(
        spec,
        dnsPolicy="ClusterFirst",
        restartPolicy="Always",
        schedulerName="default-scheduler",
        securityContext={},
        terminationGracePeriodSeconds=30,
    )
    if spec.get("serviceAccountName"):
        _set(spec, serviceAccount=spec["serviceAccountName"])
    for volume in spec.get("volumes") or ():
        if not set(volume) - {"name"}:
            volume["emptyDir"] = {}
        for source in ("configMap", "secret", "projected", "downwardAPI"):
            if volume.get(source) is not None:
                _set(volume[source], defaultMode=0o644)


def _template(obj: Object) -> None:
    _pod_spec(obj["spec"].setdefault("template", {}).setdefault("spec", {}))


def _deployment(obj: Object) -> None:
    spec = obj["spec"]
    _template(obj)
    _set(spec, progressDeadlineSeconds=600, replicas=1, revisionHistoryLimit=10, strategy={})
    _set(spec["strategy"], type="RollingUpdate")
    if spec["strategy"]["type"] == "RollingUpdate":
        _set(spec["strategy"], rollingUpdate={})
        _set(spec["strategy"]["rollingUpdate"], maxSurge="25%", maxUnavailable="25%")
    _set(obj, status={})


def _statefulset(obj: Object) -> None:
    spec = obj["spec"]
    _template(obj)
    _set(
        spec,
        podManagementPolicy="OrderedReady",
        replicas=1,
        revisionHistoryLimit=10,
        serviceName="",
        updateStrategy={},
        persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"},
    )
    _set(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _set(spec["updateStrategy"], rollingUpdate={"partition": 0})
    _set(obj, status={"availableReplicas": 0, "replicas": 0})


def _replicaset(obj: Object) -> None:
    _template(obj)
    _set(obj["spec"], replicas=1)
    _set(obj, status={"replicas": 0})


def _job(obj: Object) -> None:
    _template(obj)
    _set(obj["spec"], backoffLimit=6, completions=1, parallelism=1, completionMode="NonIndexed", suspend=False)
    _set(obj, status={})


def _pod(obj: Object) -> None:
    spec = obj["spec"]
    _pod_spec(spec)
    _set(spec, enableServiceLinks=True, preemptionPolicy="PreemptLowerPriority", priority=0)
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(toleration.get("key") == key for toleration in tolerations):
            tolerations.append({"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300})
    _set(obj, status={})
    _set(obj["status"], phase="Pending", qosClass="BestEffort")


def _service(obj: Object) -> None:
    spec = obj["spec"]
    _set(spec, type="ClusterIP", sessionAffinity="None")
    if spec["type"] != "ExternalName":
        meta = obj["metadata"]
        number = zlib.crc32(f"{meta.get('namespace')}/{meta['name']}".encode())
        _set(spec, clusterIP=f"10.96.{number // 256 % 256}.{number % 254 + 1}")
        _set(spec, clusterIPs=[spec["clusterIP"]], internalTrafficPolicy="Cluster")
        _set(spec, ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")
    for port in spec.get("ports") or ():
        _set(port, protocol="TCP", targetPort=port.get("port"))
    _set(obj, status={"loadBalancer": {}})


def _node(obj: Object) -> None:
    _set(obj, spec={}, status={})
    info = ("architecture", "bootID", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion")
    more = ("kubeletVersion", "machineID", "operatingSystem", "osImage", "systemUUID")
    _set(
        obj["status"],
        daemonEndpoints={"kubeletEndpoint": {"Port": 0}},
        nodeInfo=dict.fromkeys((*info, *more), ""),
    )
    for condition in obj["status"].get("conditions") or ():
        condition.setdefault("lastHeartbeatTime", None)
        condition.setdefault("lastTransitionTime", None)


def _namespace(obj: Object) -> None:
    labels = obj["metadata"].setdefault("labels", {})
    _set(labels, **{"kubernetes.io/metadata.name": obj["metadata"]["name"]})
    _set(obj, spec={"finalizers": ["kubernetes"]}, status={"phase": "Active"})


def _event(obj: Object) -> None:
    _set(obj, reportingComponent="", reportingInstance="", source={})
    for name in ("eventTime", "firstTimestamp", "lastTimestamp"):
        obj.setdefault(name, None)


def _secret(obj: Object) -> None:
    _set(obj, type="Opaque")
    for name, text in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[name] = base64.b64encode(text.encode()).decode()


def _claim(obj: Object) -> None:
    _set(obj["spec"], volumeMode="Filesystem")
    _set(obj, status={"phase": "Pending"})


def _crd(obj: Object) -> None:
    spec, names = obj["spec"], obj["spec"]["names"]
    _set(spec, conversion={"strategy": "None"})
    _set(names, listKind=f"{names['kind']}List", singular=names["kind"].lower())
    stored = [version["name"] for version in spec["versions"] if version.get("storage")]
    _set(obj, status={"acceptedNames": {"kind": "", "plural": ""}, "conditions": None, "storedVersions": stored})


_FILLERS: dict[tuple[str, str], Callable[[Object], None]] = {
    ("", "Pod"): _pod,
    ("", "Service"): _service,
    ("", "Node"): _node,
    ("", "Namespace"): _namespace,
    ("", "Event"): _event,
    ("", "Secret"): _secret,
    ("", "PersistentVolumeClaim"): _claim,
    ("apps", "Deployment"): _deployment,
    ("apps", "StatefulSet"): _statefulset,
    ("apps", "ReplicaSet"): _replicaset,
    ("batch", "Job"): _job,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _crd,
}
