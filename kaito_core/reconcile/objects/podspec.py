"""The pod template of a Workload. The objects around it are made in `manifests`."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from kaito_core.api import FetchStep, KubeObject, Workload, Workspace
from kaito_core.api.fetching import SECRET_PREFIX, SECRET_VARIABLE
from kaito_core.api.quantity import format_gib
from kaito_core.api.serving import ADAPTERS_PATH, CONFIG_FILE, CONFIG_PATH, KEPT_PATH, PORT, WEIGHTS_PATH
from kaito_core.api.workload import TORCHRUN_PORT, WORKSPACE_LABEL, headless_name, serving_name
from kaito_core.reconcile.objects.take_along import Options, equip_container, equip_template

__all__ = [
    "ADAPTER_VARIABLE",
    "CONFIG_REVISION_ANNOTATION",
    "RUNTIME_CONTAINER",
    "adapter_container",
    "fetch_container",
    "pod_template",
    "server_requests",
    "tolerations",
]

RUNTIME_CONTAINER = "runtime"
#: Marks a container that fetches an adapter with the adapter's folder, "name/revision".
ADAPTER_VARIABLE = "KAITO_ADAPTER"

#: Replaces the pods when what they read only at their start has changed in the ServingConfig.
CONFIG_REVISION_ANNOTATION = "kaito.sh/config-revision"
_API_KEY_PATH = "/etc/kaito/api-key"
_ADAPTERS_MOUNT: Mapping[str, Any] = {"name": "adapters", "mountPath": ADAPTERS_PATH}
_WEIGHTS_MOUNT: Mapping[str, Any] = {"name": "weights", "mountPath": WEIGHTS_PATH}
_RUNTIME_MOUNTS: tuple[Mapping[str, Any], ...] = (
    {**_ADAPTERS_MOUNT, "readOnly": True},
    {"name": "serving", "mountPath": CONFIG_PATH, "readOnly": True},
    {"name": "dshm", "mountPath": "/dev/shm"},
    {"name": "tmp", "mountPath": "/tmp"},
)
#: What the Pod Security level "restricted" requires of every container. All containers are one user, who owns the
#: shared files: most adapters' images run as root, and the kubelet cannot tell whether a named user is root.
_LOCKED_DOWN = {
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
#: A quota may require requests of every container. Steps run before the runtime does, so that they cost nothing extra.
_STEP_REQUESTS = {"cpu": "100m", "memory": "256Mi"}
#: Beyond these a pod is evicted, before it fills its node: adapters of all revisions, and the caches of compilers.
_ADAPTERS_SIZE, _TMP_SIZE = "64Gi", "16Gi"
_LAST_WORDS = "FallbackToLogsOnError"  # puts the end of a failed container's log into the pod's status
_PROBE_PERIOD_SECONDS = 10
_GRACE_SECONDS = 120  # from a pod's deletion until it is killed
_ROUTES_SECONDS = 5  # until no requests are routed to a pod that is being deleted
_DRAIN_SECONDS = _GRACE_SECONDS - _ROUTES_SECONDS - 10  # the longest answer that such a pod still finishes


def tolerations(*gpu_resources: str) -> list[KubeObject]:
    """Returns the tolerations of pods that use GPUs: the taints of these resources, and upstream's sku=gpu."""
    return [
        *({"key": resource, "operator": "Exists", "effect": "NoSchedule"} for resource in gpu_resources),
        {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"},
    ]


def fetch_container(
    name: str, step: FetchStep, runtime_image: str, mount: Mapping[str, Any], options: Options, *, late: bool = False
) -> KubeObject:
    """Returns the container that runs a fetch step.

    Args:
        name: Name of the container.
        step: What it runs.
        runtime_image: Image of a step that has none.
        mount: Where its files go: all that it may write to of what containers share.
        options: What pods take along.
        late: Whether it is added to a running pod.
    """
    own = step.image is None
    container: KubeObject = {
        "name": name,
        "image": step.image or runtime_image,
        "command": list(step.command),
        "volumeMounts": [dict(mount), *map(dict, step.mounts)],
        "securityContext": dict(_LOCKED_DOWN),
        "terminationMessagePolicy": _LAST_WORDS,
    }
    if step.pull_policy and not own:
        container["imagePullPolicy"] = step.pull_policy
    if not late:  # the resources of a running pod are fixed
        container["resources"] = {"requests": dict(_STEP_REQUESTS)}
    env: list[KubeObject] = [{"name": key, "value": value} for key, value in sorted(step.env.items())]
    env += [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": entry}}}
        for key, (secret, entry) in sorted(step.secret_env.items())
    ]
    if step.secret:
        env.append({"name": SECRET_VARIABLE, "value": step.secret})
        # Optional, so that the container can say which key of which Secret is missing, instead of not starting.
        container["envFrom"] = [{"prefix": SECRET_PREFIX, "secretRef": {"name": step.secret, "optional": True}}]
    if own:
        env += [{"name": "HOME", "value": "/tmp"}]
        container["volumeMounts"].append({"name": "tmp", "mountPath": "/tmp"})
    if env:
        container["env"] = env
    return equip_container(container, options, trusted=own, late=late)


def adapter_container(
    folder: str, step: FetchStep, runtime_image: str, options: Options = MappingProxyType({}), *, late: bool = False
) -> KubeObject:
    """Returns the container that fetches one adapter; `late` makes one that is added to a running pod.

    It sees the adapter's own folder alone. A late one sees those of all adapters, since the API allows it no mount of a
    part of a volume, and has the revision in its name, since the pod may have an init container of an earlier revision.
    """
    adapter, _, revision = folder.partition("/")
    name = f"adapter-{adapter[:46].rstrip('-')}-{revision}" if late else f"adapter-{adapter}"
    mount = (
        _ADAPTERS_MOUNT if late else {**_ADAPTERS_MOUNT, "mountPath": f"{ADAPTERS_PATH}/{adapter}", "subPath": adapter}
    )
    marked = replace(step, env={**step.env, ADAPTER_VARIABLE: folder})
    return fetch_container(name, marked, runtime_image, mount, options, late=late)


def _command(workspace: Workspace, workload: Workload) -> list[str]:
    serve = [
        "serve",
        *("--config", CONFIG_FILE),
        *("--model", WEIGHTS_PATH),
        *("--adapters-dir", ADAPTERS_PATH),
        *("--host", "$(KAITO_HOST)"),
        *("--port", "$(KAITO_PORT)"),
        *("--drain-seconds", "$(KAITO_DRAIN_SECONDS)"),
    ]
    if workload.kind == "StatefulSet":
        first = f"{workspace.name}-0.{headless_name(workspace.name)}.{workspace.namespace}.svc.cluster.local"
        rendezvous = [
            f"--nnodes={workload.replicas}",
            "--rdzv-backend=c10d",
            f"--rdzv-id={workspace.name}-{_rendezvous_hash(workload)}",
            f"--rdzv-endpoint={first}:{TORCHRUN_PORT}",
            # Pods may have to wait for one another's weights; by default torchrun gives up after a minute.
            f"--rdzv-conf=join_timeout={workload.startup_seconds},read_timeout={workload.startup_seconds}",
            # Containers restart, not ranks inside of them: a torchrun announces where the ranks meet in its first round
            # only, so that a new pod would wait for ever, and ranks that load again fail the liveness probe.
            "--max-restarts=0",
        ]
    elif workload.gpus > 1:
        rendezvous = ["--standalone"]
    else:
        return ["kaito-runtime", *serve]
    return ["torchrun", *rendezvous, f"--nproc-per-node={max(workload.gpus, 1)}", "-m", "kaito_runtime", *serve]


def _torchrun_env(workload: Workload) -> list[KubeObject]:
    if workload.kind != "StatefulSet" and workload.gpus <= 1:
        return []
    # By default torchrun kills its processes 30 seconds after a SIGTERM, long before the kubelet would.
    return [{"name": "TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "value": str(_DRAIN_SECONDS + 5)}]


def _rendezvous_hash(workload: Workload) -> str:
    """Returns a hash of what the ranks of one model must have in common; ranks with another hash do not join them."""
    parts = (
        *(workload.image, workload.weights.image, workload.weights.command, workload.gpus, workload.replicas),
        *(workload.arguments, workload.config_revision),
    )
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:8]


def server_requests(memory_gib: float) -> dict[str, str]:
    """Returns what the server's container asks for besides GPUs and disk, for a preset that needs this memory."""
    return {"cpu": "1", "memory": format_gib(memory_gib)}


def _runtime_container(workspace: Workspace, workload: Workload) -> KubeObject:
    def probe(path: str, **numbers: int) -> KubeObject:
        return {"httpGet": {"path": path, "port": "http"}, "periodSeconds": _PROBE_PERIOD_SECONDS, **numbers}

    ports: list[KubeObject] = [{"name": "http", "containerPort": PORT, "protocol": "TCP"}]
    resources: KubeObject = {"requests": server_requests(workload.memory_gib)}
    if workload.requests_disk:
        resources["requests"]["ephemeral-storage"] = format_gib(workload.disk_gib)
    if workload.gpus:
        resources["requests"][workload.gpu_resource] = str(workload.gpus)
        resources["limits"] = {workload.gpu_resource: str(workload.gpus)}
    if workload.kind == "StatefulSet":
        ports.append({"name": "torch", "containerPort": TORCHRUN_PORT, "protocol": "TCP"})
    container: KubeObject = {
        "name": RUNTIME_CONTAINER,
        "image": workload.image,
        "command": [*_command(workspace, workload), *_further_arguments(workload)],
        "env": [
            # The root is read-only, and the caches of the hub, Triton and torch's compiler are in the home folder.
            {"name": "HOME", "value": "/tmp"},
            {"name": "KAITO_DRAIN_SECONDS", "value": str(_DRAIN_SECONDS)},
            {"name": "KAITO_HOST", "value": "0.0.0.0"},
            {"name": "KAITO_PORT", "value": str(PORT)},
            *_torchrun_env(workload),
        ],
        "ports": ports,
        "resources": resources,
        "securityContext": dict(_LOCKED_DOWN),
        "volumeMounts": [*map(dict, _RUNTIME_MOUNTS), _weights_to_read(workload)],
        "startupProbe": probe("/health", failureThreshold=math.ceil(workload.startup_seconds / _PROBE_PERIOD_SECONDS)),
        "livenessProbe": probe("/livez", failureThreshold=3, timeoutSeconds=5),
        "readinessProbe": probe("/readyz", failureThreshold=3, timeoutSeconds=5),
        "lifecycle": {"preStop": {"sleep": {"seconds": _ROUTES_SECONDS}}},
        "terminationMessagePolicy": _LAST_WORDS,
    }
    if workload.api_key_secret:
        container["volumeMounts"] += [{"name": "api-key", "mountPath": _API_KEY_PATH, "readOnly": True}]
    return equip_container(container, workload.options, trusted=True)


def _weights_to_read(workload: Workload) -> KubeObject:
    """Returns the server's mount of the weights, which it cannot change: other pods may read the same files."""
    folder = {} if workload.kept is None else {"subPath": workload.kept.folder}
    return {**_WEIGHTS_MOUNT, **folder, "readOnly": True}


def _weights_to_write(workload: Workload) -> KubeObject:
    """Returns the mount of the step that fetches the weights: of a volume that keeps them all of it."""
    return {**_WEIGHTS_MOUNT, **({} if workload.kept is None else {"mountPath": KEPT_PATH})}


def _weights_volume(workload: Workload) -> KubeObject:
    if workload.kept is not None:
        return {"name": "weights", **workload.kept.source}
    return {"name": "weights", "emptyDir": {"sizeLimit": format_gib(workload.disk_gib)}}


def _further_arguments(workload: Workload) -> list[str]:
    # The operator and monitoring have no key.
    key = ["--api-key-file", _API_KEY_PATH, "--open-status"] if workload.api_key_secret else []
    return [*workload.arguments, *key, *workload.options.get("arguments", ())]


def pod_template(workspace: Workspace, workload: Workload) -> KubeObject:
    """Returns the pod template: steps as init containers, the runtime, and the volumes that they share."""
    image, options = workload.image, workload.options
    fetches = [
        fetch_container("weights", workload.weights, image, _weights_to_write(workload), options),
        *(adapter_container(folder, step, image, options) for folder, step in workload.adapters.items()),
    ]
    volumes: list[KubeObject] = [
        {"name": "adapters", "emptyDir": {"sizeLimit": _ADAPTERS_SIZE}},
        _weights_volume(workload),
        {"name": "serving", "configMap": {"name": serving_name(workspace.name)}},
        # NCCL and torch exchange tensors in shared memory, for which the default of 64 MiB is too small.
        {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": _TMP_SIZE}},
        *(dict(volume) for step in (workload.weights, *workload.adapters.values()) for volume in step.volumes),
    ]
    spec: KubeObject = {
        "initContainers": fetches,
        "containers": [_runtime_container(workspace, workload), *map(_sidecar, options.get("sidecars", ()))],
        "volumes": volumes,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
    }
    if workload.gpus:
        spec["tolerations"] = tolerations(workload.gpu_resource)
    if workload.affinity:
        spec["affinity"] = dict(workload.affinity)
    if workload.node_selector:
        spec["nodeSelector"] = dict(workload.node_selector)
    if workload.kept is not None and "persistentVolumeClaim" in workload.kept.source:
        # New volumes belong to root; large ones are not gone through at each start.
        spec["securityContext"] = {"fsGroup": _LOCKED_DOWN["runAsGroup"], "fsGroupChangePolicy": "OnRootMismatch"}
    if workload.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in workload.pull_secrets]
    template: KubeObject = {"metadata": {"labels": {WORKSPACE_LABEL: workspace.name}}, "spec": spec}
    if workload.api_key_secret:
        volumes.append({"name": "api-key", "secret": {"secretName": workload.api_key_secret}})
    if workload.config_revision:
        template["metadata"]["annotations"] = {CONFIG_REVISION_ANNOTATION: workload.config_revision}
    return equip_template(workspace.name, template, options)


def _sidecar(given: Mapping[str, Any]) -> KubeObject:
    """Returns a plugin's container with what namespaces and quotas ask for where the plugin does not say it."""
    return {
        **given,
        "securityContext": {**_LOCKED_DOWN, **given.get("securityContext", {})},
        "resources": given.get("resources") or {"requests": dict(_STEP_REQUESTS)},
    }
