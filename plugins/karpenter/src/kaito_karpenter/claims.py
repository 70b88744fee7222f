"""What is asked of Karpenter: which NodeClaims a request needs, and how each is written. Pure functions.

A NodeClaim's spec cannot be changed, so that one which does not fit any more is replaced, never edited.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass

from kaito_core.api.cluster import KubeObject, ResourceType
from kaito_core.api.nodes import INSTANCE_TYPE_LABEL, NodeRequest
from kaito_core.api.quantity import format_gib
from kaito_core.api.workload import MANAGED_BY_LABEL, MANAGER, WORKSPACE_LABEL, WORKSPACE_NAMESPACE_LABEL
from kaito_core.errors import FieldError, InvalidWorkspaceError
from kaito_karpenter.checks import check_request
from kaito_karpenter.choices import ARCHITECTURE
from kaito_karpenter.cloud import KarpenterCloud

__all__ = ["NODECLAIMS", "ClaimPlan", "is_ready", "owner_labels", "plan_claims"]

NODECLAIMS = ResourceType("karpenter.sh", "v1", "nodeclaims", "NodeClaim", namespaced=False)
NODE_POOL = "karpenter.sh/nodepool"
#: No such NodePool exists: with it in the label, no NodePool counts the node as its own and scales it away.
POOL_NAME = "kaito"
TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
#: Label domains that kubelets, Karpenter and this operator write; a selector cannot put them on a node.
_RESERVED_DOMAINS = ("kaito.sh", "karpenter.sh", "kubernetes.io", "k8s.io")


@dataclass(frozen=True, slots=True)
class ClaimPlan:
    """What to do with the NodeClaims of a Workspace.

    Attributes:
        keep: Claims that serve the request: ready ones first, those with pods before those without, then by name.
        create: Manifests of the claims that are missing.
        surplus: Claims that serve no purpose once those kept and created are ready. One that is too many and has pods
            is not among them before Kubernetes has chosen which pods go.
        mistaken: Claims that serve none now: of another machine type or with other labels, and without pods. The
            quota that they hold may be what the right ones lack.
        form: Stands for what is asked for of each machine.
    """

    keep: tuple[KubeObject, ...]
    create: tuple[KubeObject, ...]
    surplus: tuple[KubeObject, ...]
    mistaken: tuple[KubeObject, ...]
    form: str


def owner_labels(request: NodeRequest) -> dict[str, str]:
    """Returns the labels that tie a claim to its Workspace; claims have no namespace and no owner references."""
    return {WORKSPACE_LABEL: request.workspace, WORKSPACE_NAMESPACE_LABEL: request.namespace}


def plan_claims(request: NodeRequest, existing: Iterable[KubeObject], cloud: KarpenterCloud) -> ClaimPlan:
    """Returns which claims to keep, to create and to give back.

    Claims of the Workspace that somebody else's name carries (made by KAITO, say) are kept where they fit.

    Args:
        request: The nodes that are needed.
        existing: Claims with the Workspace's labels.
        cloud: Whose machines they are.

    Raises:
        InvalidWorkspaceError: No machine can be asked for as the Workspace is written.
    """
    asked = check_request(request, cloud)
    wanted = _user_labels(request, cloud)
    claims = list(existing)
    alive = [claim for claim in claims if not claim["metadata"].get("deletionTimestamp")]
    fitting = [claim for claim in alive if _fits(claim, request.instance_type, wanted, asked)]
    fitting.sort(key=lambda claim: (not is_ready(claim), not _holds_pods(claim, request), claim["metadata"]["name"]))
    keep = fitting[: request.count]
    taken = {claim["metadata"]["name"] for claim in claims}
    names = _free_names(request, taken, request.count - len(keep))
    mistaken = [claim for claim in alive if claim not in fitting and not _holds_pods(claim, request)]
    leaving = [claim for claim in fitting if claim not in keep and _holds_pods(claim, request)]
    return ClaimPlan(
        keep=tuple(keep),
        create=tuple(_manifest(name, request, wanted, asked, cloud) for name in names),
        surplus=tuple(claim for claim in alive if claim not in (*keep, *mistaken, *leaving)),
        mistaken=tuple(mistaken),
        form=_form(request, wanted, {**cloud.choices, **asked}, cloud),
    )


def is_ready(claim: KubeObject) -> bool:
    """Returns whether a claim has become a node that takes pods."""
    conditions = claim.get("status", {}).get("conditions", ())
    ready = any(found.get("type") == "Ready" and found.get("status") == "True" for found in conditions)
    return ready and bool(claim["status"].get("nodeName"))


def _holds_pods(claim: KubeObject, request: NodeRequest) -> bool:
    return claim.get("status", {}).get("nodeName") in request.held_nodes


def _user_labels(request: NodeRequest, cloud: KarpenterCloud) -> dict[str, str]:
    """Returns the selector as labels for new nodes, without reserved ones.

    Raises:
        InvalidWorkspaceError: The selector cannot be met by labelling a node.
    """
    labels = dict(request.match_labels)
    for index, expression in enumerate(request.match_expressions):
        values: Sequence[str] = expression.get("values") or ()
        if expression["operator"] != "In" or len(values) != 1:
            raise InvalidWorkspaceError(
                [
                    FieldError(
                        f"resource.labelSelector.matchExpressions[{index}]",
                        "must be the operator In with one value where nodes are created, got "
                        f"{expression['operator']} with {len(values)} values; nodes cannot be labelled to match it",
                    )
                ]
            )
        labels[expression["key"]] = values[0]
    reserved = (*_RESERVED_DOMAINS, *cloud.label_domains)
    return {key: value for key, value in labels.items() if not _is_in(key, reserved)}


def _is_in(key: str, domains: Iterable[str]) -> bool:
    prefix, slash, _ = key.partition("/")
    return bool(slash) and any(prefix == domain or prefix.endswith(f".{domain}") for domain in domains)


def _fits(
    claim: KubeObject, instance_type: str, labels: Mapping[str, str], asked: Mapping[str, tuple[str, ...]]
) -> bool:
    """Returns whether a claim is of the machine type, with the labels and with what a Workspace's annotations ask.

    What the operator's settings say is for new claims alone: another setting is not to end every pod.
    """
    has: Mapping[str, str] = claim["metadata"].get("labels", {})
    types = [value.casefold() for value in _required(claim, INSTANCE_TYPE_LABEL)]
    if types != [instance_type.casefold()] or not labels.items() <= has.items():
        return False
    for key, values in asked.items():
        # A label says what was launched.
        actual = (has[key],) if key in has else _required(claim, key)
        if key != ARCHITECTURE and not (actual and set(actual) <= set(values)):
            return False
    return True


def _required(claim: KubeObject, key: str) -> list[str]:
    """Returns the values that a claim allows for a label."""
    return [
        value
        for requirement in claim["spec"].get("requirements", ())
        if requirement["key"] == key
        for value in requirement.get("values", ())
    ]


def _form(
    request: NodeRequest, labels: Mapping[str, str], choices: Mapping[str, tuple[str, ...]], cloud: KarpenterCloud
) -> str:
    said = [cloud.name, astuple(cloud.node_class), request.instance_type.casefold(), labels, choices]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]


def _free_names(request: NodeRequest, taken: set[str], count: int) -> list[str]:
    """Returns the first names of the Workspace that no claim has.

    They depend on nothing but the Workspace and the claims, so that a pass that does not see yet what the last one
    created asks for the same claims again. Agent pools of AKS, which the gpu-provisioner names after claims, allow 12
    characters.
    """
    names: list[str] = []
    index = 0
    while len(names) < count:
        identity = f"{request.namespace}/{request.workspace}/{request.uid}/{index}"
        name = f"ws{hashlib.sha256(identity.encode()).hexdigest()[:10]}"
        if name not in taken:
            names.append(name)
        index += 1
    return names


def _tolerates_taint(request: NodeRequest) -> bool:
    return any(toleration.get("key") == TAINT["key"] for toleration in request.tolerations)


def _manifest(
    name: str,
    request: NodeRequest,
    labels: Mapping[str, str],
    asked: Mapping[str, tuple[str, ...]],
    cloud: KarpenterCloud,
) -> KubeObject:
    sku, node_class = cloud.find_sku(request.instance_type), cloud.node_class
    instance_type = sku.name if sku is not None else request.instance_type
    required = {
        INSTANCE_TYPE_LABEL: (instance_type,),
        NODE_POOL: (POOL_NAME,),
        "kubernetes.io/os": ("linux",),
        **cloud.choices,
        **asked,
        ARCHITECTURE: (cloud.architecture(instance_type),),
    }
    return {
        "apiVersion": NODECLAIMS.api_version,
        "kind": NODECLAIMS.kind,
        "metadata": {
            "name": name,
            "labels": {**labels, **owner_labels(request), NODE_POOL: POOL_NAME, MANAGED_BY_LABEL: MANAGER},
            "annotations": {"karpenter.sh/do-not-disrupt": "true"},  # a model takes long to load
        },
        "spec": {
            "nodeClassRef": {"group": node_class.group, "kind": node_class.kind, "name": node_class.name},
            # The pods of a preset without GPUs do not tolerate it.
            **({"taints": [TAINT]} if request.gpus or _tolerates_taint(request) else {}),
            "requirements": [
                {"key": key, "operator": "In", "values": list(values)} for key, values in required.items()
            ],
            "expireAfter": cloud.expire_after,  # what do-not-disrupt does not stop
            "resources": {"requests": {node_class.storage_resource: format_gib(request.disk_gib)}},
        },
    }
