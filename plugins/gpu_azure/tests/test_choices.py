"""What may be chosen about machines beyond their type: by an option for all, by an annotation for one Workspace."""

from collections.abc import Mapping
from typing import Any

import pytest

from kaito_core.api import KubeObject
from kaito_core.errors import ConfigError, InvalidWorkspaceError
from kaito_gpu_azure.provider import AZURE
from kaito_karpenter.claims import ClaimPlan, plan_claims
from kaito_karpenter.testing import claim, request

ARM = "Standard_ND128isr_NDR_GB200_v6"
CAPACITY, ZONE, ARCH = "karpenter.sh/capacity-type", "topology.kubernetes.io/zone", "kubernetes.io/arch"


def plan(existing: Any = (), options: Mapping[str, str] | None = None, **changes: Any) -> ClaimPlan:
    return plan_claims(request(**changes), existing, AZURE.configured(options or {}))


def made(options: Mapping[str, str] | None = None, **changes: Any) -> KubeObject:
    (found,) = plan((), options, **changes).create
    return found


def required(manifest: KubeObject) -> dict[str, list[str]]:
    return {entry["key"]: entry["values"] for entry in manifest["spec"]["requirements"] if entry["operator"] == "In"}


class TestExpiry:
    @pytest.mark.parametrize("duration", ["720h", "1h30m", "Never"])
    def test_is_an_option(self, duration: str) -> None:
        assert made({"expire_after": duration})["spec"]["expireAfter"] == duration

    @pytest.mark.parametrize("duration", ["30d", "720", "", "never", "0h", "0h0m", "-1h", "720h "])
    def test_must_be_what_karpenter_reads(self, duration: str) -> None:
        words = (
            f"KAITO_PLUGIN_GPU_AZURE__EXPIRE_AFTER must be Never or a duration such as 720h or 1h30m, got '{duration}'"
        )
        with pytest.raises(ConfigError) as caught:
            AZURE.configured({"expire_after": duration})
        assert str(caught.value) == words

    @pytest.mark.parametrize("spec", [{}, {"expireAfter": "720h"}])
    def test_replaces_no_claim(self, spec: dict[str, str]) -> None:
        """A claim from before has Karpenter's default, 720h; its machine serves a model."""
        old = claim("a", node="n1")
        old["spec"] |= spec
        found = plan([old])
        assert (list(found.keep), found.create, found.surplus, found.mistaken) == ([old], (), (), ())


class TestRequirements:
    def test_of_every_claim(self) -> None:
        """Without a capacity type, Karpenter takes a spot machine for a claim that no NodePool made."""
        assert required(made())[CAPACITY] == ["on-demand"]
        assert ZONE not in required(made())

    def test_options_hold_for_all_workspaces(self) -> None:
        found = required(made({"capacity_type": "spot, on-demand", "zones": "westeurope-1,westeurope-2"}))
        assert (found[CAPACITY], found[ZONE]) == (["spot", "on-demand"], ["westeurope-1", "westeurope-2"])

    def test_annotations_come_before_options(self) -> None:
        asked = {"kaito.sh/capacity-type": "reserved", "kaito.sh/zones": "westeurope-3"}
        found = required(made({"capacity_type": "spot", "zones": "westeurope-1"}, annotations=asked))
        assert (found[CAPACITY], found[ZONE]) == (["reserved"], ["westeurope-3"])

    @pytest.mark.parametrize(
        ("annotation", "value", "possible"),
        [
            ("kaito.sh/capacity-type", "cheap", "must be on-demand, spot or reserved, or several separated by commas"),
            ("kaito.sh/capacity-type", "spot,", "must be on-demand, spot or reserved, or several separated by commas"),
            ("kaito.sh/zones", "", "must be names of zones separated by commas"),
            ("kaito.sh/zones", "west europe", "must be names of zones separated by commas"),
            ("kaito.sh/architectures", "x86", "must be amd64 or arm64, or both separated by a comma"),
        ],
    )
    def test_bad_values_are_refused(self, annotation: str, value: str, possible: str) -> None:
        with pytest.raises(InvalidWorkspaceError) as caught:
            plan(annotations={annotation: value})
        assert str(caught.value) == f"metadata.annotations[{annotation}] {possible}, got '{value}'"
        option = annotation.removeprefix("kaito.sh/").replace("-", "_")
        with pytest.raises(ConfigError) as refused:
            AZURE.configured({option: value})
        assert str(refused.value) == f"KAITO_PLUGIN_GPU_AZURE__{option.upper()} {possible}, got '{value}'"


class TestExistingClaims:
    @pytest.mark.parametrize("options", [{}, {"capacity_type": "spot"}, {"zones": "westeurope-1"}])
    def test_options_replace_no_claim(self, options: dict[str, str]) -> None:
        """Another setting of the operator is not to end every pod."""
        assert plan([claim("a", node="n1")], options).create == ()

    @pytest.mark.parametrize(
        ("labels", "fits"), [({CAPACITY: "on-demand"}, True), ({CAPACITY: "spot"}, False), ({}, False)]
    )
    def test_an_annotation_is_held_against_the_machine(self, labels: dict[str, str], fits: bool) -> None:
        """Karpenter labels a claim with what it has launched."""
        old = claim("a", node="n1", **labels)
        found = plan([old], annotations={"kaito.sh/capacity-type": "on-demand"}, held_nodes=("n1",))
        assert ([old] == list(found.keep), [old] == list(found.surplus)) == (fits, not fits)

    @pytest.mark.parametrize(("asked", "fits"), [("a,b,c", True), ("a,b", True), ("a", False)])
    def test_a_claim_on_its_way_is_known_by_its_requirements(self, asked: str, fits: bool) -> None:
        old = claim("a")
        old["spec"]["requirements"].append({"key": ZONE, "operator": "In", "values": ["a", "b"]})
        assert ([old] == list(plan([old], annotations={"kaito.sh/zones": asked}).keep)) == fits


class TestArchitecture:
    def test_a_machine_type_has_its_own(self) -> None:
        assert required(made())[ARCH] == ["amd64"]
        assert required(made({"architectures": "amd64,arm64"}, instance_type=ARM))[ARCH] == ["arm64"]
        assert required(made({"architectures": "amd64,arm64"}))[ARCH] == ["amd64"]

    def test_an_image_of_a_workspaces_own_may_have_another(self) -> None:
        assert required(made(annotations={"kaito.sh/architectures": "arm64"}, instance_type=ARM))[ARCH] == ["arm64"]

    @pytest.mark.parametrize(
        ("instance_type", "annotations", "has", "built"),
        [
            (ARM, {}, "arm64", "amd64"),
            ("Standard_D2ps_v5", {}, "arm64", "amd64"),
            ("Standard_NC24ads_A100_v4", {"kaito.sh/architectures": "arm64"}, "amd64", "arm64"),
        ],
    )
    def test_one_that_the_images_lack_is_refused(
        self, instance_type: str, annotations: dict[str, str], has: str, built: str
    ) -> None:
        with pytest.raises(InvalidWorkspaceError) as caught:
            plan(instance_type=instance_type, annotations=annotations, gpus=0)
        assert str(caught.value) == (
            f"resource.instanceType must be a machine type with {built} processors, which the images are built for, "
            f"got '{instance_type}' with {has} processors; if the images are built for both, set the annotation "
            "kaito.sh/architectures: amd64,arm64 or, for all Workspaces, KAITO_PLUGIN_GPU_AZURE__ARCHITECTURES"
        )

    @pytest.mark.parametrize(
        ("name", "architecture"),
        [
            ("Standard_D2pds_v5", "arm64"),
            ("Standard_E4ps_v6", "arm64"),
            ("Standard_B2pts_v2", "arm64"),
            ("Standard_ND128isr_GB300_v6", "arm64"),
            ("Standard_NP10s", "amd64"),
            ("Standard_NC16as_T4_v3", "amd64"),
            ("Standard_HB120-16rs_v3", "amd64"),
            ("Standard_D16s_v5", "amd64"),
        ],
    )
    def test_is_told_by_the_name(self, name: str, architecture: str) -> None:
        assert AZURE.architecture(name) == architecture
