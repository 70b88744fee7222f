"""Which kind of node the pods of a Workspace may run on, as the pod template says it. Pure functions.

Nothing here looks at nodes: the template changes with the Workspace and its preset, never with the world. So nothing
that happens to a node (cordon, taint, a device plugin that restarts) ends a pod that runs, and among the nodes of the
kind the scheduler chooses by the GPUs that are free.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kaito_core.api import KubeObject, Workspace
from kaito_core.api.nodes import GPU_MEMORY_LABEL, INSTANCE_TYPE_LABEL

__all__ = ["named_nodes", "node_affinity", "pod_affinity"]

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_HIGHEST_WEIGHT = 100
Term = Mapping[str, Any]


def pod_affinity(
    workspace: Workspace,
    made: Mapping[str, str],
    *,
    machine_types: Iterable[str] = (),
    gpu_memory_gib: float = 0.0,
    affinity: Mapping[str, Any] | None = None,
    labels_apart: bool = False,
) -> KubeObject:
    """Returns the affinity of a Workspace's pods, {} where any node will do.

    Args:
        workspace: The Workspace.
        made: Labels of the nodes that a provider makes for it alone: these are the nodes then, whatever it says.
        machine_types: Its machine type as the node label may spell it; none for any.
        gpu_memory_gib: Memory that each GPU must have at least, in GiB; 0 for any.
        affinity: What the pods ask for besides, a pod's `affinity`.
        labels_apart: Whether the labels that nodes must have are in the pods' nodeSelector.
    """
    if made:
        return node_affinity(
            [{"matchExpressions": [_is(key, value) for key, value in sorted(made.items())]}], (), affinity
        )
    resource = workspace.resource
    asked = _selected(workspace)
    # Without labels the nodes that are named are the only ones; with labels they are the ones to take first.
    preferred, named = (resource.preferred_nodes, ()) if asked else ((), resource.preferred_nodes)
    if labels_apart:
        asked = asked[len(resource.label_selector.match_labels) :]
    terms = _node_terms(asked, named, machine_types, gpu_memory_gib)
    return node_affinity(terms, preferred, affinity)


def _selected(workspace: Workspace) -> list[KubeObject]:
    """Returns the label selector of a Workspace as requirements of a node selector term."""
    selector = workspace.resource.label_selector
    return [
        *(_is(key, value) for key, value in selector.match_labels.items()),
        *(_requirement(expression.model_dump(by_alias=True)) for expression in selector.match_expressions),
    ]


def _node_terms(
    asked: list[KubeObject], named: Iterable[str], machine_types: Iterable[str], gpu_memory_gib: float
) -> list[KubeObject]:
    """Returns the kinds of node as node selector terms: alternatives, none for any node."""
    alternatives: list[Sequence[Term]] = [[{"matchExpressions": asked}] if asked else [{}], named_nodes(named) or [{}]]
    if types := sorted(set(machine_types)):
        alternatives.append(_where_labelled({"key": INSTANCE_TYPE_LABEL, "operator": "In", "values": types}))
    if gpu_memory_gib:
        # Drivers report a little less than is sold: half a GiB is forgiven, as where nodes are checked.
        above = math.floor((math.ceil(gpu_memory_gib) - 0.5) * 1024) - 1
        alternatives.append(_where_labelled({"key": GPU_MEMORY_LABEL, "operator": "Gt", "values": [str(above)]}))
    terms = [_all_of(chosen) for chosen in itertools.product(*alternatives)]
    return [] if terms == [{}] else terms


def node_affinity(
    terms: Sequence[Term], preferred: Sequence[str] = (), affinity: Mapping[str, Any] | None = None
) -> KubeObject:
    """Returns a pod's affinity for kinds of node, {} where nothing is asked.

    Args:
        terms: Node selector terms, of which a node has to meet one; none for any node.
        preferred: Names of the nodes to take first where they meet a term, the best first.
        affinity: What holds besides, a pod's `affinity`.
    """
    affinity = affinity or {}
    own: Mapping[str, Any] = affinity.get("nodeAffinity") or {}
    required = (own.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    added: KubeObject = {}
    if terms:
        added[_REQUIRED] = {"nodeSelectorTerms": [_all_of(pair) for pair in itertools.product(terms, required)]}
    if preferred:
        added[_PREFERRED] = [
            *own.get(_PREFERRED, []),
            *(
                {"weight": max(_HIGHEST_WEIGHT - index, 1), "preference": term}
                for index, term in enumerate(named_nodes(preferred))
            ),
        ]
    return {**affinity, "nodeAffinity": {**own, **added}} if added else dict(affinity)


def named_nodes(names: Iterable[str]) -> list[KubeObject]:
    """Returns a term for each name: the API lets a term name one node only."""
    return [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]} for name in dict.fromkeys(names)
    ]


def _where_labelled(requirement: KubeObject) -> list[KubeObject]:
    """Returns terms for the nodes that meet a requirement, and for those without the label, which say nothing."""
    return [
        {"matchExpressions": [requirement]},
        {"matchExpressions": [{"key": requirement["key"], "operator": "DoesNotExist"}]},
    ]


def _is(key: str, value: str) -> KubeObject:
    return {"key": key, "operator": "In", "values": [value]}


def _requirement(expression: Mapping[str, Any]) -> KubeObject:
    requirement = {"key": expression["key"], "operator": expression["operator"]}
    return requirement | ({"values": list(expression["values"])} if expression.get("values") else {})


def _all_of(terms: Iterable[Term]) -> KubeObject:
    """Returns the term that asks for all that several ask for."""
    whole: KubeObject = {}
    for term in terms:
        for key, requirements in term.items():
            whole[key] = [*whole.get(key, []), *requirements]
    return whole
