"""Which NodeClaims a request needs, and their manifests. Pure functions.

The spec of a NodeClaim is immutable. A claim that no longer fits is replaced.
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
#: A NodePool of this name does not exist. With it as label, no NodePool takes the node for its own and removes it.
POOL_NAME = "kaito"
TAINT = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
#: Domains of labels that kubelets, Karpenter and this operator set. Labels of a selector in them are not set on nodes.
_RESERVED_DOMAINS = ("kaito.sh", "karpenter.sh", "kubernetes.io", "k8s.io")


@dataclass(frozen=True, slots=True)
class ClaimPlan:
    """What to do with the NodeClaims of a Workspace.

    Attributes:
        keep: Claims that match the request: ready ones first, those with pods before those without, then by name.
        create: Manifests of the missing claims.
        surplus: Claims to delete once those kept and created are ready. A claim that matches and has pods is not
            surplus until Kubernetes has chosen which pods to end.
        mistaken: Claims to delete at once, since they do not match the request and have no pods. The claims to create
            may need the quota that they hold.
        form: Stands for what is asked for of each machine.
    """

    keep: tuple[KubeObject, ...]
    create: tuple[KubeObject, ...]
    surplus: tuple[KubeObject, ...]
    mistaken: tuple[KubeObject, ...]
    form: str


def owner_labels(request: NodeRequest) -> dict[str, str]:
    """Returns the labels that identify the Workspace of a claim, which has no namespace and no owner reference."""
    return {WORKSPACE_LABEL: request.workspace, WORKSPACE_NAMESPACE_LABEL: request.namespace}


def plan_claims(request: NodeRequest, existing: Iterable[KubeObject], cloud: KarpenterCloud) -> ClaimPlan:
    """Returns which claims to keep, to create and to delete.

    Claims of the Workspace with other names, for instance created by KAITO, are kept if they match.

    Args:
        request: The nodes that are needed.
        existing: The claims with the Workspace's labels.
        cloud: The cloud of the machines.

    Raises:
        InvalidWorkspaceError: The Workspace requests a machine that cannot exist.
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
    """Returns whether a claim has a node that accepts pods."""
    conditions = claim.get("status", {}).get("conditions", ())
    ready = any(found.get("type") == "Ready" and found.get("status") == "True" for found in conditions)
    return ready and bool(claim["status"].get("nodeName"))


def _holds_pods(claim: KubeObject, request: NodeRequest) -> bool:
    return claim.get("status", {}).get("nodeName") in request.held_nodes


def _user_labels(request: NodeRequest, cloud: KarpenterCloud) -> dict[str, str]:
    """Returns the labels that make new nodes match the selector, without reserved ones.

    Raises:
        InvalidWorkspaceError: Labels cannot make a node match the selector.
    """
    labels = dict(request.match_labels)
    for index, expression in enumerate(request.match_expressions):
        values: Sequence[str] = expression.get("values") or ()
        if expression["operator"] != "In" or len(values) != 1:
            raise InvalidWorkspaceError(
                [
                    FieldError(
                        f"resource.labelSelector.matchExpressions[{index}]",
                        "must be the operator In with one value if nodes are created, got "
                        f"{expression['operator']} with {len(values)} values; new nodes cannot be labelled to match it",
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
    """Returns whether a claim has the machine type, the labels, and what the Workspace's annotations request.

    Options of the plugin are not compared: changing one must not end every pod.
    """
    has: Mapping[str, str] = claim["metadata"].get("labels", {})
    types = [value.casefold() for value in _required(claim, INSTANCE_TYPE_LABEL)]
    if types != [instance_type.casefold()] or not labels.items() <= has.items():
        return False
    for key, values in asked.items():
        # The label has what was launched, the requirement what was allowed.
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
    """Returns names for new claims.

    They depend only on the Workspace and its claims, so that a pass that does not yet see the claims of the previous
    one creates the same ones again. Names have 12 characters: the gpu-provisioner uses them for agent pools of AKS.
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
            "expireAfter": cloud.expire_after,  # do-not-disrupt does not prevent expiry
            "resources": {"requests": {node_class.storage_resource: format_gib(request.disk_gib)}},
        },
    }
