"""Weights that stay when pods end: the volume in the pod, and claims and folders that cannot keep them."""

from typing import Any

import kubernetes_validate
import pytest

from kaito_core.api import KubeObject, NodeState, Workspace, parse_workspace
from kaito_core.api.serving import KEPT_PATH, WEIGHTS_PATH
from kaito_core.errors import InvalidClaimError, InvalidWorkspaceError
from kaito_core.reconcile.desired import desired
from kaito_core.reconcile.nodes.request import node_request
from kaito_core.reconcile.resolve import Resolved, resolve
from kaito_core.settings import Settings
from kaito_testing.registry import example_preset, registry_with

PRESETS = (
    example_preset(name="one"),
    example_preset(name="spread", gpus=2, gpu_memory_gib=40, distributed=True),
)
FOLDER = "example--example-7b/0123456789abcdef"


def workspace(
    preset: str = "one", count: int = 1, annotations: Any = None, options: Any = None, **weights: str
) -> Workspace:
    return parse_workspace(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": "demo", "namespace": "team", "annotations": annotations or {}},
            "resource": {"count": count},
            "inference": {
                "preset": {"name": preset, "presetOptions": options or {}},
                "weights": weights,
                "adapters": [{"source": {"name": "style", "image": "registry.example/a:1"}}],
            },
        }
    )


def claim(*modes: str, size: str = "100Gi", **status: Any) -> KubeObject:
    return {
        "metadata": {"name": "models"},
        "spec": {"accessModes": list(modes)},
        "status": {"phase": "Bound", "capacity": {"storage": size}, **status},
    }


def resolved(mine: Workspace, found: KubeObject | None = None, **settings: Any) -> Resolved:
    return resolve(mine, registry_with(PRESETS, settings=Settings(**settings)), None, found)


def pod(known: Resolved) -> KubeObject:
    objects = desired(known, NodeState(()), Settings()).objects
    for manifest in objects:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    spec: KubeObject = objects[-1]["spec"]["template"]["spec"]
    return spec


def mounts(container: KubeObject) -> list[KubeObject]:
    return [mount for mount in container["volumeMounts"] if mount["name"] == "weights"]


@pytest.mark.parametrize("preset", ["one", "spread"])
def test_weights_on_a_claim_are_fetched_by_a_step_and_only_read_by_the_server(preset: str) -> None:
    known = resolved(workspace(preset, claim="models"), claim("ReadWriteMany"))
    spec = pod(known)
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "weights"]
    assert volume == {"name": "weights", "persistentVolumeClaim": {"claimName": "models"}}
    weights, adapter = spec["initContainers"]
    (server,) = spec["containers"]
    assert mounts(weights) == [{"name": "weights", "mountPath": KEPT_PATH}]
    assert weights["command"][-3:] == ["--to", f"{KEPT_PATH}/{FOLDER}", "--keep"]
    assert mounts(server) == [{"name": "weights", "mountPath": WEIGHTS_PATH, "subPath": FOLDER, "readOnly": True}]
    assert mounts(adapter) == [], "an adapter's image sees no weights"
    assert spec["securityContext"] == {"fsGroup": 65532, "fsGroupChangePolicy": "OnRootMismatch"}
    assert "ephemeral-storage" not in server["resources"]["requests"]
    assert node_request(known.workspace, known.preset).disk_gib == 0


def test_a_claim_that_can_only_be_read_is_mounted_so() -> None:
    spec = pod(resolved(workspace(count=3, claim="models"), claim("ReadOnlyMany")))
    assert {"claimName": "models", "readOnly": True} in [v.get("persistentVolumeClaim") for v in spec["volumes"]]


def test_a_folder_of_nodes_is_for_those_whom_the_operator_allows_it() -> None:
    mine = workspace(hostPath="/var/lib/kaito/weights")
    spec = pod(resolved(mine, weights_host_paths=("/srv", "/var/lib/kaito")))
    assert {"path": "/var/lib/kaito/weights", "type": "DirectoryOrCreate"} in [
        v.get("hostPath") for v in spec["volumes"]
    ]
    assert "securityContext" not in spec
    assert node_request(mine, PRESETS[0]).disk_gib == PRESETS[0].disk_gib
    for allowed in ((), ("/var/lib/kaito2",), ("/var/lib/kaito/weights/a",)):
        with pytest.raises(InvalidWorkspaceError, match=r"inference.weights.hostPath is not allowed by .*HOST_PATHS"):
            resolved(mine, weights_host_paths=allowed)


def test_an_image_keeps_its_weights_itself() -> None:
    options = {"image": "registry.example/weights:1"}
    with pytest.raises(InvalidWorkspaceError, match=r"inference.weights must be left out where presetOptions.image"):
        resolved(workspace(options=options, claim="models"))


@pytest.mark.parametrize(
    ("found", "count", "annotations", "words"),
    [
        (claim("ReadWriteOnce"), 2, {}, "can be mounted by one node only (ReadWriteOnce), and there are 2 pods"),
        (claim("ReadWriteOncePod"), 2, {}, "can be mounted by one node only (ReadWriteOncePod)"),
        (claim("ReadWriteOnce"), 1, {"kaito.sh/max-surge": "1"}, "and a rolling update starts a second pod"),
        (claim("ReadWriteMany", size="5Gi"), 1, {}, "holds 5 GiB, and the weights of preset 'one' take 13.5 GiB"),
        (claim("ReadWriteMany", phase="Lost"), 1, {}, "has lost its volume"),
        ({**claim("ReadWriteMany"), "spec": {"volumeMode": "Block"}}, 1, {}, "is a block device"),
        (
            {**claim("ReadWriteMany"), "metadata": {"name": "models", "deletionTimestamp": "2024-01-01T00:00:00Z"}},
            1,
            {},
            "is being deleted",
        ),
    ],
)
def test_a_claim_that_cannot_keep_them_is_refused(found: KubeObject, count: int, annotations: Any, words: str) -> None:
    with pytest.raises(InvalidClaimError) as caught:
        resolved(workspace(count=count, annotations=annotations, claim="models"), found)
    assert str(caught.value).startswith("inference.weights.claim names PersistentVolumeClaim 'models', which")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "found",
    [
        claim("ReadWriteOnce"),
        claim("ReadWriteOnce", "ReadWriteMany", size="much"),
        {"metadata": {"name": "models"}, "spec": {"accessModes": ["ReadWriteOnce"]}},
        None,
    ],
)
def test_a_claim_that_may_do_is_taken(found: KubeObject | None) -> None:
    assert resolved(workspace(claim="models"), found).kept is not None


def test_ranks_on_several_nodes_need_a_shared_claim() -> None:
    with pytest.raises(InvalidClaimError, match="there are 2 pods"):
        resolved(workspace("spread", count=2, claim="models"), claim("ReadWriteOnce"))
