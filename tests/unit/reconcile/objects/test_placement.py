"""Which kind of node a pod template asks for: from the Workspace alone, whatever happens to nodes."""

from typing import Any

import pytest

from kaito_core.api import KubeObject, parse_workspace
from kaito_core.reconcile.objects.placement import named_nodes, node_affinity, pod_affinity

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def affinity(made: dict[str, str] | None = None, /, own: KubeObject | None = None, **asked: Any) -> KubeObject:
    facts = {key: asked.pop(key) for key in ("machine_types", "gpu_memory_gib") if key in asked}
    document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "w", "namespace": "team"},
        "resource": asked,
        "inference": {"preset": {"name": "one"}},
    }
    return pod_affinity(parse_workspace(document), made or {}, affinity=own, **facts)


def terms(found: KubeObject) -> list[KubeObject]:
    listed: list[KubeObject] = found["nodeAffinity"][_REQUIRED]["nodeSelectorTerms"]
    return listed


def has(key: str, *values: str, operator: str = "In") -> KubeObject:
    requirement: KubeObject = {"key": key, "operator": operator}
    return requirement | ({"values": list(values)} if values else {})


SELECTOR = {
    "matchLabels": {"pool": "a"},
    "matchExpressions": [has("gpu", "a100", "h100"), has("old", operator="DoesNotExist")],
}


def test_who_asks_for_nothing_gets_any_node() -> None:
    assert affinity() == {}
    assert affinity(own={"podAffinity": {}}) == {"podAffinity": {}}


def test_the_selector_is_the_kind() -> None:
    found = affinity(labelSelector=SELECTOR)
    assert found == {"nodeAffinity": {_REQUIRED: {"nodeSelectorTerms": terms(found)}}}
    assert terms(found) == [
        {"matchExpressions": [has("pool", "a"), has("gpu", "a100", "h100"), has("old", operator="DoesNotExist")]}
    ]


def test_names_without_labels_are_the_only_nodes_and_each_is_a_term() -> None:
    assert terms(affinity(preferredNodes=["b", "a"])) == named_nodes(["b", "a"])


def test_names_with_labels_are_taken_first_in_their_order() -> None:
    found = affinity(preferredNodes=["b", "a"], labelSelector={"matchLabels": {"pool": "a"}})
    assert terms(found) == [{"matchExpressions": [has("pool", "a")]}]
    best, second = found["nodeAffinity"][_PREFERRED]
    assert [best["preference"], second["preference"]] == named_nodes(["b", "a"])
    assert 100 >= best["weight"] > second["weight"] >= 1


def test_machines_that_are_made_are_known_by_their_own_labels_alone() -> None:
    made = {"kaito.sh/workspacenamespace": "team", "kaito.sh/workspace": "w"}
    found = affinity(made, labelSelector=SELECTOR, preferredNodes=["b"], machine_types=["A"], gpu_memory_gib=80)
    assert terms(found) == [
        {"matchExpressions": [has("kaito.sh/workspace", "w"), has("kaito.sh/workspacenamespace", "team")]}
    ]
    assert list(found["nodeAffinity"]) == [_REQUIRED]


def test_a_machine_type_and_a_size_of_gpu_hold_where_a_label_says_them() -> None:
    machine, memory = "node.kubernetes.io/instance-type", "nvidia.com/gpu.memory"
    found = affinity(machine_types=["b", "a", "b"], gpu_memory_gib=39.2, labelSelector={"matchLabels": {"pool": "a"}})
    pool, typed, sized = has("pool", "a"), has(machine, "a", "b"), has(memory, "40447", operator="Gt")
    unlabelled = {key: has(key, operator="DoesNotExist") for key in (machine, memory)}
    assert terms(found) == [
        {"matchExpressions": [pool, kind, size]}
        for kind in (typed, unlabelled[machine])
        for size in (sized, unlabelled[memory])
    ]


@pytest.mark.parametrize(("label", "fits"), [(40960, True), (40536, True), (40448, True), (40447, False)])
def test_half_a_gib_is_forgiven_as_where_nodes_are_checked(label: int, fits: bool) -> None:
    (bound,) = terms(affinity(gpu_memory_gib=40))[0]["matchExpressions"][0]["values"]
    assert (label > int(bound)) is fits is (round(label / 1024) >= 40)


def test_what_a_template_asks_for_holds_too() -> None:
    own: KubeObject = {
        "podAntiAffinity": {},
        "nodeAffinity": {
            _REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [has("disk", "fast")]}, *named_nodes(["z"])]},
            _PREFERRED: [{"weight": 1, "preference": {}}],
        },
    }
    found = node_affinity([{"matchExpressions": [has("pool", "a")]}], ["n"], own)
    assert terms(found) == [
        {"matchExpressions": [has("pool", "a"), has("disk", "fast")]},
        {"matchExpressions": [has("pool", "a")], **named_nodes(["z"])[0]},
    ]
    assert found["podAntiAffinity"] == {}
    assert [entry["weight"] for entry in found["nodeAffinity"][_PREFERRED]] == [1, 100]
