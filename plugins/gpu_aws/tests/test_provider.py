"""What is particular to AWS: the node class, the machine types, and the words that mean a lack of capacity."""

import asyncio
from typing import Any

import pytest

from kaito_core.api import GpuSku, NodeProvider, NodeRequest
from kaito_core.errors import ConfigError, InvalidWorkspaceError
from kaito_core.settings import Settings
from kaito_gpu_aws.plugin import kaito_node_providers
from kaito_gpu_aws.provider import AWS
from kaito_gpu_aws.skus import SKUS
from kaito_karpenter import NODECLAIMS, KarpenterProvider
from kaito_karpenter.attempts import Attempts
from kaito_karpenter.progress import claims_state
from kaito_karpenter.testing import claim as karpenters
from kaito_karpenter.testing import node
from kaito_testing.world.memory_cluster import MemoryCluster


def request(**changes: Any) -> NodeRequest:
    given = {"workspace": "mistral", "namespace": "team", "uid": "u1", "count": 1, "instance_type": "g5.2xlarge"}
    return NodeRequest(**{**given, "gpus": 1, "disk_gib": 93.0, **changes})


def claim(options: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
    """Returns the claim that is made for a request."""
    cluster = MemoryCluster()
    asyncio.run(KarpenterProvider(AWS.configured(options or {})).ensure(request(**changes), cluster))
    (made,) = asyncio.run(cluster.list(NODECLAIMS))
    return made


def test_claims_refer_to_an_ec2_node_class() -> None:
    spec = claim()["spec"]
    assert spec["nodeClassRef"] == {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}
    assert spec["requirements"][0]["values"] == ["g5.2xlarge"]
    assert spec["resources"]["requests"] == {"ephemeral-storage": "93Gi"}


def test_options_choose_the_node_class() -> None:
    assert claim({"node_class": "gpu"})["spec"]["nodeClassRef"]["name"] == "gpu"
    with pytest.raises(ConfigError, match=r"gpu_aws: unknown option 'ami'; known: .* node_class"):
        kaito_node_providers(Settings(plugins={"gpu_aws": {"ami": "x"}}))


def test_registered() -> None:
    (provider,) = kaito_node_providers(Settings())
    assert isinstance(provider, NodeProvider)
    assert (provider.name, provider.creates_nodes) == ("gpu_aws", True)


def test_types_that_are_too_new_for_the_table_are_tried_and_other_clouds_refused() -> None:
    assert claim(instance_type="p6-b200.48xlarge")["spec"]["requirements"][0]["values"] == ["p6-b200.48xlarge"]
    with pytest.raises(InvalidWorkspaceError, match="must be a machine type of AWS, got 'Standard_NC24ads_A100_v4'"):
        claim(instance_type="Standard_NC24ads_A100_v4")


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("g5g.xlarge", "arm64"),
        ("c7gn.large", "arm64"),
        ("im4gn.4xlarge", "arm64"),
        ("a1.medium", "arm64"),
        ("p6e-gb200.36xlarge", "arm64"),
        ("g4dn.xlarge", "amd64"),
        ("gr6.4xlarge", "amd64"),
        ("g6e.48xlarge", "amd64"),
        ("p6-b200.48xlarge", "amd64"),
        ("p5en.48xlarge", "amd64"),
        ("x2iedn.large", "amd64"),
    ],
)
def test_the_architecture_is_told_by_the_name(name: str, architecture: str) -> None:
    assert AWS.architecture(name) == architecture


def test_arm_machines_are_for_images_that_are_built_for_them() -> None:
    (arch,) = (
        entry["values"]
        for entry in claim({"architectures": "amd64,arm64"}, instance_type="g5g.xlarge")["spec"]["requirements"]
        if entry["key"] == "kubernetes.io/arch"
    )
    assert arch == ["arm64"]
    with pytest.raises(InvalidWorkspaceError, match=r"with amd64 processors.*got 'g5g\.xlarge' with arm64"):
        claim(instance_type="g5g.xlarge")


def test_a_type_that_is_in_no_table_is_sized_by_the_labels_of_its_node() -> None:
    new = "p6-b200.48xlarge"
    machine = node("n1", gpus="8", **{"karpenter.k8s.aws/instance-gpu-memory": "183296"})
    state = claims_state(
        request(instance_type=new), [karpenters("a", node="n1", instance_type=new)], {"n1": machine}, AWS, Attempts("")
    )
    assert state.sku == GpuSku(new, 8, 8 * 179, "")


def test_labels_of_awss_karpenter_are_left_to_it() -> None:
    labels = claim(match_labels={"karpenter.k8s.aws/instance-gpu-name": "a10g", "team": "a"})["metadata"]["labels"]
    assert labels["team"] == "a"
    assert "karpenter.k8s.aws/instance-gpu-name" not in labels


@pytest.mark.parametrize(
    "words",
    [
        "InsufficientInstanceCapacity: We currently do not have sufficient g5.2xlarge capacity",
        "VcpuLimitExceeded: You have requested more vCPU capacity than your current vCPU limit of 8 allows",
    ],
)
def test_a_refusal_of_ec2_is_passed_on(words: str) -> None:
    launched = {"type": "Launched", "status": "False", "reason": "LaunchFailed", "message": words}
    refused = {"metadata": {"name": "a"}, "spec": {}, "status": {"conditions": [launched]}}
    state = claims_state(request(), [refused], {}, AWS, Attempts(""))
    assert (state.reason, state.failed) == ("InsufficientCapacity", True)
    assert f"AWS says: {words}" in state.message


@pytest.mark.parametrize("sku", SKUS, ids=lambda sku: sku.name)
def test_memory_is_that_of_the_gpu_model(sku: Any) -> None:
    sizes = {"V100": {16, 32}, "T4": {16}, "A10G": {24}, "L4": {24}, "A100": {40, 80}, "H100": {80}, "H200": {141}}
    assert sku.memory_per_gpu_gib in sizes[sku.gpu_model.split()[-1]]


@pytest.mark.parametrize(
    "name",
    [
        "p6-b200.48xlarge",
        "p6e-gb200.36xlarge",
        "g6f.large",
        "c7i.metal-24xl",
        "u-6tb1.metal",
        "u7i-12tb.224xlarge",
        "t3.nano",
    ],
)
def test_a_type_of_aws_is_known_by_its_name(name: str) -> None:
    assert AWS.makes(name)


@pytest.mark.parametrize(
    "name", ["g5.2xlarg", "g5", "g5.", ".xlarge", "Standard_NC6s_v3", "nope.xlarge", "g5.2xlarge "]
)
def test_another_name_is_none_of_awss(name: str) -> None:
    assert not AWS.makes(name)


@pytest.mark.parametrize(
    "name", ["c7i.large", "m6a.48xlarge", "r8g.xlarge", "t3.nano", "x2iedn.large", "hpc7a.96xlarge"]
)
def test_series_without_gpus(name: str) -> None:
    assert AWS.lacks_gpus(name)


def test_images_for_amd64_run_on_every_type_of_the_table() -> None:
    assert {AWS.architecture(sku.name) for sku in SKUS} == {"amd64"}


@pytest.mark.parametrize("name", [*(sku.name for sku in SKUS), "p6-b200.48xlarge", "g5g.xlarge", "dl1.24xlarge"])
def test_other_series_may_have_gpus(name: str) -> None:
    assert AWS.makes(name)
    assert not AWS.lacks_gpus(name)
