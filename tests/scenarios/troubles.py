"""Faults as users meet them: how each is caused, which reason the status has, and what to do next."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from kaito_testing.world.pods import PodFailure
from scenarios.support.karpenter import first_claim, install_nodeclaims, refuse
from scenarios.support.pods import QUOTA
from scenarios.support.state import add_job, add_node, warn
from scenarios.support.world import World, adapter, conditions, workspace

__all__ = ["FAULTS", "Trouble"]

_W = MappingProxyType({"kaito.sh/workspace": "w"})
_ON_AZURE = {"instanceType": "Standard_NC24ads_A100_v4"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault.

    Attributes:
        title: What a user notices.
        reason: Reason of the condition WorkspaceSucceeded.
        cause: Causes it for Workspace `w`.
        advice: What to do next, in Markdown.
    """

    title: str
    reason: str
    cause: Callable[[World], object]
    advice: str


def _fails(
    reason: str, message: str = "", container: str = "", options: Mapping[str, str] | None = None
) -> Callable[[World], object]:
    def cause(world: World) -> None:
        world.fail_pods(PodFailure(reason, _W, container, message))
        world.apply(workspace("w", preset_options=options))

    return cause


def _missing_volume(world: World) -> None:
    world.fail_pods(PodFailure("FailedMount", _W))
    volumes = [{"name": "licence", "secret": {"secretName": "licence"}}]
    mounts = [{"name": "licence", "mountPath": "/licence"}]
    containers = [{"name": "mine", "image": "registry.example/mine:1", "volumeMounts": mounts}]
    world.apply(workspace("w", inference={"template": {"spec": {"containers": containers, "volumes": volumes}}}))
    pod = world.wait("its pod begins", lambda: next((p for p in world.pods("w") if "startTime" in p["status"]), None))
    about = {"kind": "Pod", **{key: pod["metadata"][key] for key in ("name", "namespace", "uid")}}
    words = 'MountVolume.SetUp failed for volume "licence" : secret "licence" not found'
    warn(world.cluster, about, "FailedMount", words, world.namespace)
    long_ago = {"status": {"startTime": "2026-01-01T00:00:00Z"}}  # the kubelet is given some seconds
    world.cluster.patch("pods", about["name"], long_ago, world.namespace, subresource="status")


def _broken_adapter(world: World) -> None:
    world.runtimes.broken["style"] = "lora_A of layer 0 has 64 columns, the model has 32"
    world.apply(workspace("w", adapters=[adapter("style")]))


def _foreign_service(world: World) -> None:
    port = {"port": 80, "protocol": "TCP"}
    world.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "w"}, "spec": {"ports": [port]}})
    world.apply(workspace("w"))


def _no_such_node(world: World) -> None:
    world.apply(workspace("w", "on-gpu", resource={"preferredNodes": ["gpu-7"]}))


def _lost_node(world: World) -> None:
    add_node(world, "gpu-1", gpus=1)
    world.apply(workspace("w", "on-gpu", resource={"preferredNodes": ["gpu-1"]}))
    world.wait_state("w", "Ready")
    add_node(world, "gpu-1", gpus=1, ready=False)


def _taken_node(world: World) -> None:
    add_node(world, "gpu-1", gpus=1)
    world.apply(workspace("first", "on-gpu", resource={"preferredNodes": ["gpu-1"]}))
    world.wait_state("first", "Ready")
    world.apply(workspace("w", "on-gpu", resource={"preferredNodes": ["gpu-1"]}))


def _on_the_rack(world: World) -> None:
    world.apply(workspace("w", "on-gpu", resource={"labelSelector": {"matchLabels": {"rack": "a"}}}))


def _node_that_is(**parts: Any) -> Callable[[World], object]:
    """Returns the cause of a node that does not fit: spec, and status.allocatable, that differ from others'."""

    def cause(world: World) -> None:
        labels = {"rack": "a", **parts.get("labels", {})}
        add_node(world, "gpu-1", gpus=1, labels=labels)
        if spec := parts.get("spec"):
            world.cluster.patch("nodes", "gpu-1", {"spec": spec}, "")
        if amounts := parts.get("allocatable"):
            world.cluster.patch("nodes", "gpu-1", {"status": {"allocatable": amounts}}, "", subresource="status")
        _on_the_rack(world)

    return cause


def _gpu_of_a_job(world: World) -> None:
    add_node(world, "gpu-1", gpus=1, labels={"rack": "a"})
    add_job(world, "gpu-1")
    _on_the_rack(world)


def _empty_pool(world: World) -> None:
    annotations = {"kaito.sh/node-provider": "scheduler"}
    resource = {"labelSelector": {"matchLabels": {"pool": "gpu"}}}
    world.apply(workspace("w", "on-gpu", resource=resource, annotations=annotations))
    world.wait_reason("w", "ResourceReady", "WaitingForNodes")
    world.wait(
        "the scheduler's words",
        lambda: (
            "nodes are available"
            in conditions(world.get("workspaces", "w")).get("ResourceReady", {}).get("message", "")
        ),
    )


def _too_small(world: World) -> None:
    world.apply(workspace("w", "on-gpu", resource={"instanceType": "Standard_NV12ads_A10_v5"}))


def _no_machine_left(world: World) -> None:
    install_nodeclaims(world.cluster)
    world.apply(workspace("w", "on-gpu", resource=_ON_AZURE))
    claim = first_claim(world)
    refuse(
        world.cluster,
        claim["metadata"]["name"],
        "Operation could not be completed as it exceeds approved quota: NCads 0",
    )


def _refused(world: World) -> None:
    words = 'admission webhook "images.example.com" denied the request: images must come from registry.example'
    world.cluster.fail("PATCH", "/deployments/w$", 403, times=10**9, message=words)
    world.apply(workspace("w"))


_TAINT = {"key": "team", "value": "other", "effect": "NoSchedule"}

FAULTS = (
    Trouble(
        "The preset does not exist",
        "UnknownPreset",
        lambda world: world.apply(workspace("w", "on-gpus")),
        "The message suggests a similar name, or lists the presets that are installed. Correct `inference.preset.name`,"
        " or install the plugin that brings the preset; `kaito presets list` lists what is installed.",
    ),
    Trouble(
        "The image cannot be pulled",
        "ImagePullError",
        _fails("ImagePullBackOff"),
        "Check the name of the image and that the cluster reaches its registry. A private one needs a pull secret in"
        " the namespace of the Workspace: `inference.preset.presetOptions.imagePullSecrets`.",
    ),
    Trouble(
        "The server ends again and again",
        "ContainerCrashLoopBackOff",
        _fails("CrashLoopBackOff"),
        "`kubectl logs deployment/NAME --previous` shows what the server logged last;"
        " [run the server](run-the-server.md#when-it-ends-by-itself) says what it means.",
    ),
    Trouble(
        "The server is killed for memory",
        "ContainerOOMKilled",
        _fails("OOMKilled"),
        "The machine has too little main memory for the model: use a larger `resource.instanceType` or a smaller"
        " preset; `kaito presets show NAME` shows what a preset needs.",
    ),
    Trouble(
        "No node takes the pod",
        "Unschedulable",
        _fails("Unschedulable", "0/1 nodes are available: 1 Insufficient memory."),
        "This is the scheduler's message. Free what it names on the nodes of the Workspace, or give it other nodes.",
    ),
    Trouble(
        "A pod was evicted",
        "PodEvicted",
        _fails("Evicted", "The node was low on resource: ephemeral-storage. Threshold quantity: 10Gi, available: 8Gi."),
        "This is the kubelet's message. Kubernetes creates another pod, which stays if the node then has enough of what"
        " was short. Clear the node's disk, or give the Workspace nodes with a larger one: `kaito presets show NAME`"
        " shows how much the model needs.",
    ),
    Trouble(
        "The namespace's quota is used up",
        "QuotaExceeded",
        _fails("FailedCreate", f"exceeded quota: {QUOTA}, requested: pods=1, used: pods=0, limited: pods=0"),
        "`kubectl describe quota -n NAMESPACE` shows what is counted. Raise the quota, or delete what uses it up; the"
        " pods are then created without further action.",
    ),
    Trouble(
        "A Secret is missing",
        "ContainerStartError",
        _fails(
            "CreateContainerConfigError",
            'secret "hub" not found',
            "weights",
            {"modelAccessSecret": "hub"},
        ),
        "Create it in the namespace of the Workspace: `kubectl create secret generic NAME --from-literal=HF_TOKEN=...`."
        " The pod then starts without further action.",
    ),
    Trouble(
        "A volume cannot be mounted",
        "PodStartError",
        _missing_volume,
        "This is the kubelet's message, which it writes to events only; `kubectl describe pod` shows it too. Create"
        " what is missing; the pod then starts within a few minutes.",
    ),
    Trouble(
        "The model does not fit the machine",
        "DoesNotFit",
        _too_small,
        "No machine is created. Use the machine type that is named, or a larger one.",
    ),
    Trouble(
        "The cloud has no machine left",
        "InsufficientCapacity",
        _no_machine_left,
        "This is the cloud's message. Ask the cloud for a higher quota, or choose another `resource.instanceType`; the"
        " operator tries again without further action.",
    ),
    Trouble(
        "Another Workspace has the GPUs",
        "NodesNotReady",
        _taken_node,
        "GPUs are not shared. Give this Workspace other nodes, or delete the Workspace that is named; its GPUs are then"
        " used within half a minute.",
    ),
    Trouble(
        "A pod that is no Workspace's has the GPUs",
        "NodesNotReady",
        _gpu_of_a_job,
        "The message names the pod. End it, or give the Workspace other nodes.",
    ),
    Trouble(
        "The node is cordoned",
        "NodesNotReady",
        _node_that_is(spec={"unschedulable": True}),
        "`kubectl uncordon NODE` lets pods onto it again. A pod that serves on a node when it is cordoned is left"
        " alone; the status then says `NodesImpaired`.",
    ),
    Trouble(
        "The node is kept for others",
        "NodesNotReady",
        _node_that_is(spec={"taints": [_TAINT]}),
        "Have the pods tolerate the taint in `inference.pod.tolerations`, or take it off the node. Taints of the names"
        " of GPU resources, and `sku=gpu`, are tolerated always.",
    ),
    Trouble(
        "The node's disk is too small",
        "NodesNotReady",
        _node_that_is(allocatable={"ephemeral-storage": "20Gi"}),
        "Every pod needs room for all of the weights: give the Workspace nodes with a larger disk;"
        " `kaito presets show NAME` shows how much a model needs.",
    ),
    Trouble(
        "The node's GPUs are too small",
        "NodesNotReady",
        _node_that_is(labels={"nvidia.com/gpu.memory": "8192"}),
        "The memory is what GPU feature discovery says in a label of the node. Use nodes with larger GPUs, or a smaller"
        " preset; `kaito presets show NAME` shows what a preset needs.",
    ),
    Trouble(
        "No node has the labels",
        "NodesNotReady",
        _on_the_rack,
        "Compare `resource.labelSelector` with `kubectl get nodes --show-labels`. Where the cluster's autoscaler makes"
        " nodes for pods that wait, [have the pods made first](serve-on-a-cluster.md#pools-at-zero).",
    ),
    Trouble(
        "The pool has no node yet",
        "WaitingForNodes",
        _empty_pool,
        "Nothing has failed: the pods wait for the autoscaler's nodes. These are the scheduler's words; where the"
        " autoscaler says something (`NotTriggerScaleUp`), its words follow. `kubectl describe pod` shows them too.",
    ),
    Trouble(
        "Nobody makes the machine type",
        "UnknownInstanceType",
        lambda world: world.apply(workspace("w", "on-gpu", resource={"instanceType": "Large-1"})),
        "Correct `resource.instanceType`, or leave it out where nodes are prepared. `kaito plugins list` shows the node"
        " providers that are installed.",
    ),
    Trouble(
        "The hub's name means several presets",
        "InvalidWorkspace",
        lambda world: world.apply(workspace("w", "example/Example-7B")),
        "A preset can be named by the hub's name of its weights where it alone serves them. Write the name of the one"
        " that you mean.",
    ),
    Trouble(
        "The namespace's quota asks for limits",
        "FailedCreate",
        _fails("FailedCreate", f"failed quota: {QUOTA}: must specify limits.cpu,limits.memory"),
        "Give the pods what the quota counts, in `inference.pod.resources`, or once for all Workspaces in"
        " [a setting](../reference/settings.md); the pods are then created without further action.",
    ),
    Trouble(
        "A node that was asked for does not exist",
        "NodesNotReady",
        _no_such_node,
        "Compare `resource.preferredNodes` with `kubectl get nodes`. The Workspace continues once the node exists.",
    ),
    Trouble(
        "A node was lost",
        "NodesNotReady",
        _lost_node,
        "`kubectl describe node NAME` shows why. The operator moves nothing: when the node is back, so is the model,"
        " and once Kubernetes gives the node up (after five minutes, unless set otherwise), the pod starts on another"
        " node of the kind that has room.",
    ),
    Trouble(
        "Nodes should be made, and Karpenter is not there",
        "NodeProviderFailed",
        lambda world: world.apply(workspace("w", "on-gpu", resource=_ON_AZURE)),
        "Install Karpenter for your cloud, or prepare nodes yourself and name them in `resource.preferredNodes`.",
    ),
    Trouble(
        "A name is taken",
        "NameTaken",
        _foreign_service,
        "The operator never changes objects that it did not create. Rename the Workspace, or delete the object if it is"
        " not needed.",
    ),
    Trouble(
        "An adapter does not fit the model",
        "AdapterFailed",
        _broken_adapter,
        "Running pods go on as before the edit ([what answers meanwhile](../explanation/live-adapters.md)). A pod that"
        " starts with it serves `base` and the other adapters; requests for its name get 404, for the default model id"
        " 503. Use one that was trained for this preset, or remove it from `inference.adapters`.",
    ),
    Trouble(
        "The cluster refuses an object",
        "KubernetesApiFailed",
        _refused,
        "This is the API server's message: an admission policy, a quota or missing rights. The operator tries again,"
        " after a longer wait each time.",
    ),
)
