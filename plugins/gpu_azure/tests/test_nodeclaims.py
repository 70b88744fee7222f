"""Which claims are kept, created and given back, and what is in them."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from kaito_core.errors import InvalidWorkspaceError
from kaito_gpu_azure.provider import AZURE
from kaito_karpenter.claims import ClaimPlan, plan_claims
from kaito_karpenter.testing import OWNER, TYPE, claim, request


def plan(existing: Any = (), options: Mapping[str, str] | None = None, **changes: Any) -> ClaimPlan:
    return plan_claims(request(**changes), existing, AZURE.configured(options or {}))


def names(claims: Any) -> list[str]:
    return [found["metadata"]["name"] for found in claims]


class TestManifest:
    def test_everything_in_it(self) -> None:
        (made,) = plan(instance_type=TYPE.lower(), match_labels={"apps": "falcon-7b"}).create
        name = made["metadata"].pop("name")
        assert re.fullmatch("ws[0-9a-f]{10}", name)
        assert made == {
            "apiVersion": "karpenter.sh/v1",
            "kind": "NodeClaim",
            "metadata": {
                "labels": {
                    "apps": "falcon-7b",
                    **OWNER,
                    "karpenter.sh/nodepool": "kaito",
                    "app.kubernetes.io/managed-by": "kaito",
                },
                "annotations": {"karpenter.sh/do-not-disrupt": "true"},
            },
            "spec": {
                "nodeClassRef": {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"},
                "taints": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
                "requirements": [
                    {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": [TYPE]},
                    {"key": "karpenter.sh/nodepool", "operator": "In", "values": ["kaito"]},
                    {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]},
                    {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                    {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
                ],
                "expireAfter": "Never",
                "resources": {"requests": {"ephemeral-storage": "50Gi"}},
            },
        }

    @pytest.mark.parametrize(
        ("changes", "tainted"),
        [
            ({"gpus": 1}, True),
            ({"gpus": 0}, False),  # nothing would be scheduled to it
            ({"gpus": 0, "tolerations": ({"key": "sku", "operator": "Equal", "value": "gpu"},)}, True),
        ],
    )
    def test_machines_are_tainted_where_the_pods_tolerate_it(self, changes: dict[str, Any], tainted: bool) -> None:
        (made,) = plan(**changes).create
        assert bool(made["spec"].get("taints")) == tainted

    def test_the_gpu_provisioner_reads_another_resource(self) -> None:
        (made,) = plan(options={"node_class_kind": "KaitoNodeClass", "node_class_group": "kaito.sh"}).create
        assert made["spec"]["resources"]["requests"] == {"storage": "50Gi"}
        assert made["spec"]["nodeClassRef"]["kind"] == "KaitoNodeClass"

    @pytest.mark.parametrize(
        "stolen",
        ["kaito.sh/workspace", "kaito.sh/workspacenamespace", "karpenter.sh/nodepool", "app.kubernetes.io/managed-by"],
    )
    def test_a_selector_cannot_overwrite_our_labels(self, stolen: str) -> None:
        (honest,) = plan().create
        (made,) = plan(match_labels={stolen: "other"}).create
        assert made["metadata"]["labels"] == honest["metadata"]["labels"]

    def test_labels_that_a_node_cannot_be_given_replace_nothing(self) -> None:
        labels = {"kubernetes.io/os": "linux", "karpenter.sh/capacity-type": "on-demand", "team": "a"}
        (made,) = plan(match_labels=labels).create
        assert set(made["metadata"]["labels"]) & set(labels) == {"team"}
        assert names(plan([claim("a", node="n1", team="a")], match_labels=labels).keep) == ["a"]

    def test_in_with_one_value_is_a_label(self) -> None:
        (made,) = plan(match_expressions=({"key": "team", "operator": "In", "values": ("a",)},)).create
        assert made["metadata"]["labels"]["team"] == "a"

    @pytest.mark.parametrize(("operator", "values"), [("In", ("a", "b")), ("NotIn", ("a",)), ("Exists", ())])
    def test_other_expressions_are_refused(self, operator: str, values: tuple[str, ...]) -> None:
        with pytest.raises(InvalidWorkspaceError, match=r"matchExpressions\[0\] must be the operator In with one"):
            plan(match_expressions=({"key": "team", "operator": operator, "values": values},))


class TestNames:
    def test_are_the_same_each_time(self) -> None:
        assert names(plan(count=3).create) == names(plan(count=3).create)
        assert len(set(names(plan(count=3).create))) == 3

    def test_fit_agent_pools(self) -> None:
        (name,) = names(plan(workspace="w" * 63, namespace="n" * 63).create)
        assert re.fullmatch("[a-z][a-z0-9]{0,11}", name)

    @pytest.mark.parametrize("changed", [{"workspace": "other"}, {"namespace": "other"}, {"uid": "u2"}])
    def test_differ_between_workspaces(self, changed: dict[str, Any]) -> None:
        assert names(plan(**changed).create) != names(plan().create)

    def test_one_that_is_being_deleted_is_not_used_again(self) -> None:
        (first,) = plan().create
        first["metadata"]["deletionTimestamp"] = "2024-01-01T00:00:00Z"
        again = plan([first])
        assert len(again.create) == 1
        assert names(again.create) != names([first])
        assert again.surplus == ()


class TestPlan:
    def test_missing_ones_are_created_together(self) -> None:
        result = plan([claim("a", node="n1")], count=3)
        assert (names(result.keep), len(result.create), result.surplus) == (["a"], 2, ())

    def test_ready_claims_are_kept_first(self) -> None:
        result = plan([claim("a"), claim("b", node="n1")])
        assert (names(result.keep), result.create, names(result.surplus)) == (["b"], (), ["a"])

    @pytest.mark.parametrize("made", [{"instance_type": "Standard_NC12s_v3"}, {"team": "x"}])
    def test_what_does_not_fit_is_replaced_before_it_goes_where_pods_are_on_it(self, made: dict[str, str]) -> None:
        result = plan([claim("a", node="n1", **made)], match_labels={"team": "y"}, held_nodes=("n1",))
        assert (result.keep, len(result.create), names(result.surplus), result.mistaken) == ((), 1, ["a"], ())

    @pytest.mark.parametrize("made", [{"instance_type": "Standard_NC12s_v3"}, {"team": "x"}])
    @pytest.mark.parametrize("node", [{}, {"node": "n1"}])
    def test_what_does_not_fit_goes_at_once_where_no_pod_is_on_it(
        self, made: dict[str, str], node: dict[str, str]
    ) -> None:
        result = plan([claim("a", **node, **made)], match_labels={"team": "y"}, held_nodes=("n2",))
        assert (result.keep, len(result.create), result.surplus, names(result.mistaken)) == ((), 1, (), ["a"])

    def test_the_case_of_a_machine_type_replaces_nothing(self) -> None:
        assert names(plan([claim("a", node="n1")], instance_type=TYPE.upper()).keep) == ["a"]


class TestRefusals:
    def test_a_machine_type_is_needed(self) -> None:
        with pytest.raises(InvalidWorkspaceError, match=r"resource.instanceType is required.*Standard_NC12s_v3"):
            plan(instance_type="")

    @pytest.mark.parametrize("name", ["Standard_D16s_v5", "standard_e8ds_v5"])
    def test_a_type_without_gpus_is_refused_where_they_are_needed(self, name: str) -> None:
        with pytest.raises(
            InvalidWorkspaceError, match=f"must be a machine type with GPUs, got '{name}', which has none"
        ):
            plan(instance_type=name)
        assert plan(instance_type=name, gpus=0).create

    def test_the_nearest_known_type_is_named(self) -> None:
        with pytest.raises(
            InvalidWorkspaceError, match=r"got 'Standard_NC_A100_v4'; did you mean Standard_NC[0-9]+ads_A100_v4"
        ):
            plan(instance_type="Standard_NC_A100_v4")

    def test_another_clouds_type_is_refused(self) -> None:
        with pytest.raises(InvalidWorkspaceError, match=r"must be a machine type of Azure, got 'p4d.24xlarge'"):
            plan(instance_type="p4d.24xlarge")

    def test_an_azure_type_that_is_too_new_for_the_table_is_tried(self) -> None:
        (made,) = plan(instance_type="Standard_ND96isr_H900_v9").create
        assert made["spec"]["requirements"][0]["values"] == ["Standard_ND96isr_H900_v9"]
