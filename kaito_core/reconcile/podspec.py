"""The pod of a Workload, as a manifest. What stands around it is `manifests`'."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kaito_core.api import FetchStep, KubeObject, Workload, Workspace
from kaito_core.api.quantity import format_gib
from kaito_core.api.serving import ADAPTERS_PATH, CONFIG_FILE, CONFIG_PATH, PORT, WEIGHTS_PATH
from kaito_core.api.workload import TORCHRUN_PORT, WORKSPACE_LABEL, headless_name, serving_name

__all__ = [
    "ADAPTER_VARIABLE",
    "RUNTIME_CONTAINER",
    "SHARED_MOUNTS",
    "adapter_container",
    "fetch_container",
    "node_affinity",
    "pod_template",
    "tolerations",
]

RUNTIME_CONTAINER = "runtime"
#: Marks a container that fetches an adapter with the adapter's folder, "name/revision".
ADAPTER_VARIABLE = "KAITO_ADAPTER"
GPU_RESOURCE = "nvidia.com/gpu"

#: Mounted by every container, so that steps leave their files where the runtime reads them.
SHARED_MOUNTS: tuple[Mapping[str, Any], ...] = (
    {"name": "adapters", "mountPath": ADAPTERS_PATH},
    {"name": "weights", "mountPath": WEIGHTS_PATH},
)
_RUNTIME_MOUNTS: tuple[Mapping[str, Any], ...] = (
    *SHARED_MOUNTS,
    {"name": "serving", "mountPath": CONFIG_PATH, "readOnly": True},
    {"name": "dshm", "mountPath": "/dev/shm"},
    {"name": "tmp", "mountPath": "/tmp"},
)
#: Our own image needs no more than this; an adapter's image is the user's and runs as it was built.
_LOCKED_DOWN = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
_PROBE_PERIOD_SECONDS = 10
_DRAIN_SECONDS = 120  # the longest answer that a pod finishes before it goes


def tolerations() -> list[KubeObject]:
    """Returns the tolerations of GPU pods, as upstream has them."""
    return [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
    ]


def node_affinity(nodes: Sequence[str]) -> KubeObject:
    """Returns the affinity that keeps a pod on the nodes; terms are alternatives, and each can name one node only."""
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]} for node in sorted(nodes)]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def fetch_container(name: str, step: FetchStep, runtime_image: str) -> KubeObject:
    """Returns the container that runs a fetch step."""
    own = step.image is None
    container: KubeObject = {
        "name": name,
        "image": step.image or runtime_image,
        "imagePullPolicy": step.pull_policy,
        "command": list(step.command),
        "volumeMounts": [*map(dict, SHARED_MOUNTS), *map(dict, step.mounts)],
    }
    env: list[KubeObject] = [{"name": key, "value": value} for key, value in sorted(step.env.items())]
    env += [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": entry}}}
        for key, (secret, entry) in sorted(step.secret_env.items())
    ]
    if own:
        env += [{"name": "HOME", "value": "/tmp"}]
        container["volumeMounts"].append({"name": "tmp", "mountPath": "/tmp"})
        container["securityContext"] = dict(_LOCKED_DOWN)
    if env:
        container["env"] = env
    return container


def adapter_container(folder: str, step: FetchStep, runtime_image: str, *, late: bool = False) -> KubeObject:
    """Returns the container that fetches one adapter; `late` is for one that joins a running pod.

    A late container carries the revision in its name, since the pod may have an init container for the adapter that
    it replaces.
    """
    adapter, _, revision = folder.partition("/")
    name = f"adapter-{adapter[:46].rstrip('-')}-{revision}" if late else f"adapter-{adapter}"
    marked = replace(step, env={**step.env, ADAPTER_VARIABLE: folder})
    return fetch_container(name, marked, runtime_image)


def _command(workspace: Workspace, workload: Workload) -> list[str]:
    serve = [
        "serve",
        *("--config", CONFIG_FILE),
        *("--model", WEIGHTS_PATH),
        *("--adapters-dir", ADAPTERS_PATH),
        *("--host", "$(KAITO_HOST)"),
        *("--port", "$(KAITO_PORT)"),
    ]
    if workload.kind == "StatefulSet":
        first = f"{workspace.name}-0.{headless_name(workspace.name)}.{workspace.namespace}.svc.cluster.local"
        rendezvous = [
            f"--nnodes={workload.replicas}",
            "--rdzv-backend=c10d",
            f"--rdzv-id={workspace.name}",
            f"--rdzv-endpoint={first}:{TORCHRUN_PORT}",
            "--max-restarts=3",
        ]
    elif workload.gpus > 1:
        rendezvous = ["--standalone"]
    else:
        return ["kaito-runtime", *serve]
    return ["torchrun", *rendezvous, f"--nproc-per-node={max(workload.gpus, 1)}", "-m", "kaito_runtime", *serve]


def _runtime_container(workspace: Workspace, workload: Workload) -> KubeObject:
    def probe(path: str, **numbers: int) -> KubeObject:
        return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": _PROBE_PERIOD_SECONDS, **numbers}

    ports: list[KubeObject] = [{"name": "http", "containerPort": PORT, "protocol": "TCP"}]
    resources: KubeObject = {"requests": {"cpu": "1", "memory": format_gib(workload.memory_gib)}}
    if workload.gpus:
        resources["requests"][GPU_RESOURCE] = str(workload.gpus)
        resources["limits"] = {GPU_RESOURCE: str(workload.gpus)}
    if workload.kind == "StatefulSet":
        ports.append({"name": "torch", "containerPort": TORCHRUN_PORT, "protocol": "TCP"})
    return {
        "name": RUNTIME_CONTAINER,
        "image": workload.image,
        "command": _command(workspace, workload),
        "env": [
            {"name": "HOME", "value": "/tmp"},
            {"name": "KAITO_HOST", "value": "0.0.0.0"},
            {"name": "KAITO_PORT", "value": str(PORT)},
        ],
        "ports": ports,
        "resources": resources,
        "securityContext": dict(_LOCKED_DOWN),
        "volumeMounts": [dict(mount) for mount in _RUNTIME_MOUNTS],
        "startupProbe": probe("/health", failureThreshold=math.ceil(workload.startup_seconds / _PROBE_PERIOD_SECONDS)),
        "livenessProbe": probe("/livez", failureThreshold=3, timeoutSeconds=5),
        "readinessProbe": probe("/readyz", failureThreshold=3, timeoutSeconds=5),
    }


def pod_template(workspace: Workspace, workload: Workload) -> KubeObject:
    """Returns the pod template: steps as init containers, the runtime, and the volumes that they share."""
    image = workload.image
    fetches = [
        fetch_container("weights", workload.weights, image),
        *(adapter_container(folder, step, image) for folder, step in workload.adapters.items()),
    ]
    volumes: list[KubeObject] = [
        {"name": "adapters", "emptyDir": {}},
        {"name": "weights", "emptyDir": {"sizeLimit": format_gib(workload.disk_gib)}},
        {"name": "serving", "configMap": {"name": serving_name(workspace.name)}},
        # NCCL and torch exchange tensors in shared memory; the container default of 64 MiB is too small for them.
        {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "tmp", "emptyDir": {}},
        *(dict(volume) for step in (workload.weights, *workload.adapters.values()) for volume in step.volumes),
    ]
    spec: KubeObject = {
        "initContainers": fetches,
        "containers": [_runtime_container(workspace, workload)],
        "volumes": volumes,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _DRAIN_SECONDS,
    }
    if workload.gpus:
        spec["tolerations"] = tolerations()
    if workload.nodes:
        spec["affinity"] = node_affinity(workload.nodes)
    if workload.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in workload.pull_secrets]
    return {"metadata": {"labels": {WORKSPACE_LABEL: workspace.name}}, "spec": spec}
