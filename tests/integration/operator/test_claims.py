"""NodeClaims of a running Workspace: several at once, edited or deleted by hand, refused by the cloud."""

import pytest

from kaito_core.api import KubeObject
from kaito_core.api.nodes import INSTANCE_TYPE_LABEL
from kaito_testing.world.faulty_cluster import FaultyCluster
from scenarios.support.karpenter import RESOURCE, become_nodes, claims, refuse
from scenarios.support.state import add_node
from scenarios.support.world import World, workspace


def _names(cluster: FaultyCluster) -> list[str]:
    return sorted(claim["metadata"]["name"] for claim in claims(cluster))


def _required(claim: KubeObject) -> dict[str, list[str]]:
    return {entry["key"]: entry["values"] for entry in claim["spec"]["requirements"]}


def test_all_missing_nodes_are_asked_for_before_any_is_ready(azure: World, cluster: FaultyCluster) -> None:
    (first,) = _names(cluster)
    azure.apply(workspace("w", "on-gpu", resource={**RESOURCE, "count": 4}))
    azure.wait("all claims", lambda: len(_names(cluster)) == 4)
    assert first in _names(cluster)
    assert not [claim for claim in claims(cluster) if claim.get("status")]
    become_nodes(azure)
    assert len(azure.wait_state("w", "Ready")["status"]["workerNodes"]) == 4


def test_a_claim_neither_expires_nor_becomes_a_spot_machine(azure: World, cluster: FaultyCluster) -> None:
    (claim,) = claims(cluster)
    assert claim["spec"]["expireAfter"] == "Never"
    assert claim["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    assert _required(claim)["karpenter.sh/capacity-type"] == ["on-demand"]


def test_a_workspace_chooses_capacity_type_and_zones(azure: World, cluster: FaultyCluster) -> None:
    chosen = {"kaito.sh/capacity-type": "cheap", "kaito.sh/zones": "westeurope-1,westeurope-2"}
    azure.apply(workspace("w", "on-gpu", resource=RESOURCE, annotations=chosen))
    said = azure.wait_reason("w", "WorkspaceSucceeded", "InvalidWorkspace")["message"]
    assert (
        "metadata.annotations[kaito.sh/capacity-type] must be on-demand, spot or reserved" in said and "'cheap'" in said
    )
    (before,) = _names(cluster)
    azure.apply(
        workspace("w", "on-gpu", resource=RESOURCE, annotations={**chosen, "kaito.sh/capacity-type": "spot,on-demand"})
    )
    azure.wait("another claim", lambda: _names(cluster) not in ([], [before]))
    azure.wait("the first is given back", lambda: before not in _names(cluster))
    (claim,) = claims(cluster)
    required = _required(claim)
    assert required["karpenter.sh/capacity-type"] == ["spot", "on-demand"]
    assert required["topology.kubernetes.io/zone"] == ["westeurope-1", "westeurope-2"]
    become_nodes(azure)
    azure.wait_state("w", "Ready")


def test_fewer_nodes_give_the_others_back(azure: World, cluster: FaultyCluster) -> None:
    azure.apply(workspace("w", "on-gpu", resource={**RESOURCE, "count": 3}))
    azure.wait("all claims", lambda: len(_names(cluster)) == 3)
    become_nodes(azure)
    azure.wait_state("w", "Ready")
    azure.apply(workspace("w", "on-gpu", resource=RESOURCE))
    azure.wait("two are given back", lambda: len(_names(cluster)) == 1)
    used = azure.wait_state("w", "Ready")["status"]["workerNodes"]
    assert used == [f"node-{_names(cluster)[0]}"]


def test_a_claim_that_is_deleted_by_hand_is_made_anew(azure: World, cluster: FaultyCluster) -> None:
    become_nodes(azure)
    azure.wait_state("w", "Ready")
    (lost,) = _names(cluster)
    cluster.delete("nodeclaims.karpenter.sh", lost, "")
    cluster.delete("nodes", f"node-{lost}", "")
    azure.wait_reason("w", "NodeClaimReady", "NodeClaimNotReady")
    azure.wait("another claim", lambda: len(_names(cluster)) == 1)
    become_nodes(azure)
    azure.wait_state("w", "Ready")


@pytest.mark.parametrize("label", ["kaito.sh/workspace", "kaito.sh/workspacenamespace"])
def test_a_claim_that_loses_its_owner_by_hand_is_taken_back(azure: World, cluster: FaultyCluster, label: str) -> None:
    become_nodes(azure)
    azure.wait_state("w", "Ready")
    (name,) = _names(cluster)
    spoilt = {"metadata": {"labels": {label: None}}}
    cluster.patch("nodeclaims.karpenter.sh", name, spoilt, "")
    azure.wait("it is labelled again", lambda: label in claims(cluster)[0]["metadata"]["labels"])
    assert _names(cluster) == [name]  # a second machine would be paid for, and the first be nobody's
    azure.wait_state("w", "Ready")
    azure.delete("workspaces", "w")
    azure.wait("the Workspace is gone", lambda: azure.get("workspaces", "w") is None)
    assert _names(cluster) == []


def test_a_refusal_is_told_in_the_clouds_words_and_the_next_machine_is_taken(
    azure: World, cluster: FaultyCluster
) -> None:
    refuse(cluster, _names(cluster)[0], "SkuNotAvailable: 0 of 24 cores are left in westeurope")
    said = azure.wait_reason("w", "NodeClaimReady", "InsufficientCapacity")
    assert said["status"] == "False" and "0 of 24 cores are left in westeurope" in said["message"]
    assert azure.wait_reason("w", "WorkspaceSucceeded", "InsufficientCapacity")["status"] == "False"
    azure.wait("the event", lambda: any(e["reason"] == "InsufficientCapacity" for e in azure.events("w")))
    _passes(azure)
    assert _names(cluster) == []  # it is not asked for again at once
    due = {"status": {"nodeNotes": {"nextAttempt": "2026-01-01T00:00:00Z"}}}
    azure.patch("workspaces", "w", due, subresource="status")  # as if the time had passed
    azure.wait("a claim", lambda: _names(cluster))
    become_nodes(azure)
    azure.wait_state("w", "Ready")


def _passes(world: World) -> None:
    for _ in range(3):
        world.cause_pass("w")


def test_a_claim_that_goes_away_is_not_made_again_at_once_nor_after_a_restart(
    azure: World, cluster: FaultyCluster
) -> None:
    azure.wait("it is noted", lambda: azure.existing("workspaces", "w").get("status", {}).get("nodeNotes"))
    cluster.delete("nodeclaims.karpenter.sh", _names(cluster)[0], "")  # Karpenter gives up, and does not say why
    said = azure.wait_reason("w", "NodeClaimReady", "NodeClaimDeleted")
    notes = azure.existing("workspaces", "w")["status"]["nodeNotes"]
    assert said["status"] == "False" and f"created again at {notes['nextAttempt']}, attempt 2" in said["message"]
    _passes(azure)
    azure.stop()
    azure.start()
    _passes(azure)
    assert _names(cluster) == []
    due = {"status": {"nodeNotes": {"nextAttempt": "2026-01-01T00:00:00Z"}}}
    azure.patch("workspaces", "w", due, subresource="status")
    azure.wait("the next claim", lambda: _names(cluster))
    become_nodes(azure)
    # What the test itself has written stays.
    assert set(azure.wait_state("w", "Ready")["status"].get("nodeNotes", {})) <= {"nextAttempt"}


def test_a_failed_launch_is_told_in_its_controllers_words(azure: World, cluster: FaultyCluster) -> None:
    words = "creating instance: InvalidParameter: the subnet is full"
    failed = {"type": "Launched", "status": "False", "reason": "LaunchFailed", "message": words}
    failed["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    status = {"status": {"conditions": [failed]}}
    cluster.patch("nodeclaims.karpenter.sh", _names(cluster)[0], status, "", subresource="status")

    def told() -> bool:
        return words in azure.wait_reason("w", "NodeClaimReady", "NodeClaimNotReady")["message"]

    azure.wait("the words", told)


_OWN_IMAGE = {"containers": [{"name": "server", "image": "registry.example/cpu-llm:1"}]}


def test_a_machine_type_that_is_in_no_table_is_asked_of_the_cloud_that_names_its_types_so(
    azure: World, cluster: FaultyCluster
) -> None:
    mine = workspace("own", inference={"template": {"spec": _OWN_IMAGE}}, resource={"instanceType": "Standard_D16s_v5"})
    azure.apply(mine)
    azure.wait("a claim", lambda: len(_names(cluster)) == 2)
    become_nodes(azure)
    azure.wait_state("own", "Ready")
    add_node(azure, "pool-1", gpus=0, labels={INSTANCE_TYPE_LABEL: "Standard_D16s_v5"})
    azure.cause_pass("own")
    assert len(_names(cluster)) == 2  # the machine that serves is not given up for one that appears


def test_a_new_gpu_type_is_sized_by_its_node(azure: World, cluster: FaultyCluster) -> None:
    azure.delete("workspaces", "w")
    azure.wait("its claim is gone", lambda: not _names(cluster))
    azure.apply(workspace("new", "on-gpu", resource={"instanceType": "Standard_ND96isr_H900_v9"}))
    azure.wait("a claim", lambda: _names(cluster))
    become_nodes(azure, labels={"nvidia.com/gpu.memory": "8192"})
    said = azure.wait_reason("new", "WorkspaceSucceeded", "DoesNotFit")
    assert "needs 14 GiB of GPU memory, Standard_ND96isr_H900_v9 has 8 GiB" in said["message"]


def test_prepared_nodes_of_the_type_are_taken(azure: World, cluster: FaultyCluster) -> None:
    add_node(azure, "pool-1", gpus=1, labels={INSTANCE_TYPE_LABEL: "Standard_ND96isr_H900_v9"})
    azure.apply(workspace("new", "on-gpu", resource={"instanceType": "Standard_ND96isr_H900_v9"}))
    assert azure.wait_state("new", "Ready")["status"]["workerNodes"] == ["pool-1"]
    assert len(_names(cluster)) == 1


def test_an_unknown_machine_type_is_named(azure: World) -> None:
    azure.apply(workspace("new", "on-gpu", resource={"instanceType": "Standard_NOPE_v9"}))
    said = azure.wait_reason("new", "WorkspaceSucceeded", "UnknownInstanceType")
    assert said["status"] == "False"
    assert said["message"].startswith("resource.instanceType 'Standard_NOPE_v9' is not a machine type")
    assert "(gpu_azure, gpu_onprem)" in said["message"] and "nearest known types: Standard_N" in said["message"]
    add_node(azure, "pool-1", gpus=1, labels={INSTANCE_TYPE_LABEL: "Standard_NOPE_v9"})
    azure.wait_state("new", "Ready")


def test_a_machine_type_without_gpus_is_refused_where_they_are_needed(azure: World, cluster: FaultyCluster) -> None:
    azure.apply(workspace("new", "on-gpu", resource={"instanceType": "Standard_D16s_v5"}))
    said = azure.wait_reason("new", "WorkspaceSucceeded", "InvalidWorkspace")
    assert "must be a machine type with GPUs, got 'Standard_D16s_v5', which has none" in said["message"]
    assert len(_names(cluster)) == 1


def test_no_machine_is_made_that_would_be_too_small(azure: World, cluster: FaultyCluster) -> None:
    azure.apply(workspace("small", "on-gpu", resource={"instanceType": "Standard_NV12ads_A10_v5"}))
    said = azure.wait_reason("small", "WorkspaceSucceeded", "DoesNotFit")
    assert "smallest known machine type that fits is Standard_NC6s_v3" in said["message"]
    owners = {claim["metadata"]["labels"]["kaito.sh/workspace"] for claim in claims(cluster)}
    assert owners == {"w"}
