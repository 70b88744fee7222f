"""The objects that are rendered for Workspaces of every kind, for the tests that check them."""

from typing import Any

from kaito_core.api import GpuSku, KubeObject, NodeState, parse_workspace
from kaito_core.reconcile.desired import desired
from kaito_core.reconcile.resolve import resolve
from kaito_core.settings import Settings
from kaito_testing.registry import example_preset, registry_with

__all__ = ["CASES", "LONG", "PRESETS", "REGISTRY", "containers_of", "late_containers", "manifests", "pod_of"]

LONG = "w" * 52

REGISTRY = registry_with(
    [
        example_preset(name="one"),
        example_preset(name="cpu", gpus=0, gpu_memory_gib=0, memory_gib=1.3, disk_gib=0.7),
        example_preset(name="many", gpus=4, gpu_memory_gib=100),
        example_preset(name="spread", gpus=8, gpu_memory_gib=160, distributed=True),
    ]
)
ADAPTERS = [
    {"source": {"name": "a" * 55, "image": "registry.example/a:1", "imagePullSecrets": ["pull"]}},
    {"source": {"name": "volume", "volumeSource": {"persistentVolumeClaim": {"claimName": "c"}}}},
    {"source": {"name": "files", "urls": ["https://files.example/a.tar"]}, "strength": -1},
    {"source": {"name": "hub", "uri": "hf://owner/name"}},
    {"source": {"name": "folder", "uri": "file:///srv/adapters/a"}},
]
OPTIONS = {"image": "registry.example/w:1", "imagePullSecrets": ["pull", "other"]}
CASES: dict[str, dict[str, Any]] = {
    "plain": {"preset": {"name": "one"}},
    "cpu": {"preset": {"name": "cpu"}},
    "adapters": {"preset": {"name": "one"}, "adapters": ADAPTERS, "blends": [{"name": "mix", "strengths": {"hub": 1}}]},
    "several gpus": {"preset": {"name": "many"}},
    "distributed": {"preset": {"name": "spread"}, "adapters": ADAPTERS},
    "own weights": {"preset": {"name": "one", "accessMode": "private", "presetOptions": OPTIONS}},
    "template": {"template": {"spec": {"containers": [{"name": "main", "image": "registry.example/llm:1"}]}}},
}
PRESETS = [case for case in CASES if case != "template"]


def manifests(
    case: str | dict[str, Any],
    *,
    nodes: tuple[str, ...] = ("node-a", "node-b"),
    gpu_resource: str = "",
    preferred: tuple[str, ...] = (),
    **metadata: Any,
) -> list[KubeObject]:
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": LONG, "namespace": "models", "uid": "uid", "generation": 3, **metadata},
        "resource": {"count": 2, "preferredNodes": list(preferred)},
        "inference": CASES[case] if isinstance(case, str) else case,
    }
    sku = GpuSku("A", 4, 320, "A100") if nodes else None
    state = NodeState(nodes, sku=sku, gpu_resource=gpu_resource)
    return list(desired(resolve(parse_workspace(document), REGISTRY), state, Settings()).objects)


def pod_of(objects: list[KubeObject]) -> KubeObject:
    template: KubeObject = objects[-1]["spec"]["template"]
    return template


def late_containers() -> list[KubeObject]:
    """The containers of adapters that join running pods."""
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "demo"},
        "inference": {**CASES["adapters"], "preset": {"name": "one", "presetOptions": {"modelAccessSecret": "hub"}}},
    }
    wanted = desired(resolve(parse_workspace(document), REGISTRY), NodeState(()), Settings())
    return list(wanted.late_containers.values())


def containers_of(case: str) -> list[KubeObject]:
    """All containers that a pod may have, late ones included."""
    spec = pod_of(manifests(case))["spec"]
    return [*spec["initContainers"], *spec["containers"], *late_containers()]
