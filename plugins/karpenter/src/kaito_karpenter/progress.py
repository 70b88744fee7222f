"""What Karpenter answers: from claims, nodes and events to a NodeState. Pure functions; its own words are passed on.

Karpenter deletes a claim for which the cloud has no machine or no quota, and says why in an event only.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from kaito_core.api.cluster import KubeObject
from kaito_core.api.nodes import NodeRequest, NodeState
from kaito_karpenter.claims import is_ready, owner_labels
from kaito_karpenter.cloud import KarpenterCloud
from kaito_karpenter.machines import offers_gpus, reported, smallest_sku

__all__ = ["RETRY_AFTER", "capacity_words", "claims_state"]

#: How long nothing is asked for again after a refusal: the answer is a deletion, which wakes the operator at once.
RETRY_AFTER = timedelta(minutes=5)
_STAGES = ("Launched", "Registered", "Initialized", "Ready")
_CAPACITY = re.compile(
    r"quota|insufficient.{0,16}capacity|all requested instance types were unavailable|sku.?not.?available|"
    r"(allocation|provisioning).?failed|overconstrained|out of capacity|(vcpu|instance).?limit.?exceeded",
    re.IGNORECASE,
)


def capacity_words(events: Iterable[KubeObject], names: Iterable[str], now: datetime) -> str:
    """Returns what the newest recent event of one of the claims says about capacity, "" if there is none."""
    wanted = set(names)
    recent = [
        (when, str(event.get("message", "")))
        for event in events
        if event.get("involvedObject", {}).get("kind") == "NodeClaim"
        and event["involvedObject"].get("name") in wanted
        and _CAPACITY.search(f"{event.get('reason', '')} {event.get('message', '')}")
        and (when := _when(event)) > now - RETRY_AFTER
    ]
    return max(recent)[1] if recent else ""


def claims_state(
    request: NodeRequest,
    claims: Sequence[KubeObject],
    nodes: Mapping[str, KubeObject | None],
    cloud: KarpenterCloud,
    refused: str = "",
) -> NodeState:
    """Returns how far a Workspace's nodes are.

    Args:
        request: The nodes that are needed.
        claims: The claims that serve it, in the order of preference.
        nodes: The nodes of the claims that are ready, by name; None for one that cannot be read.
        cloud: Whose machines they are.
        refused: What the provider said where it refused a machine; "" if it did not.
    """
    sku = cloud.find_sku(request.instance_type)
    ready: list[str] = []
    waiting: list[str] = []
    for claim in claims:
        name = claim["metadata"]["name"]
        if not is_ready(claim):
            waiting.append(f"{name} {_stage(claim)}")
        elif request.gpus and not offers_gpus(nodes.get(claim["status"]["nodeName"])):
            node = claim["status"]["nodeName"]
            has = "whose device plugin has not registered its GPUs yet"
            waiting.append(f"{name} has become node {node}, {has if sku else f'which {reported(nodes.get(node))}'}")
        else:
            ready.append(claim["status"]["nodeName"])
    created = tuple(claim["metadata"]["name"] for claim in claims)
    labels = owner_labels(request)  # Karpenter copies a claim's labels onto its node
    if len(ready) >= request.count:
        if sku is None and request.gpus:
            sku = smallest_sku(request.instance_type, map(nodes.get, ready[: request.count]), cloud)
        return NodeState(ready=tuple(ready), sku=sku, created=created, labels=labels)
    nearest = cloud.nearest(request.instance_type) if sku is None and request.gpus else ""
    unlisted = f". {cloud.title}'s table has no {request.instance_type}; did you mean {nearest}?" if nearest else ""
    words = refused or next((text for claim in claims for text in _refusals(claim)), "")
    progress = f"{len(ready)} of {request.count} nodes of type {request.instance_type} are ready"
    if words:
        return NodeState(
            ready=tuple(ready),
            reason="InsufficientCapacity",
            message=(
                f"{progress}; {cloud.title} says: {words}. Raise your quota there, or choose another region or "
                f"resource.instanceType; {cloud.title} is asked again {RETRY_AFTER.seconds // 60} minutes after each "
                "refusal"
            ),
            failed=True,
            sku=sku,
            created=created,
            labels=labels,
        )
    return NodeState(
        ready=tuple(ready),
        reason="NodeClaimNotReady",
        message=f"{progress}: {'; '.join(waiting) or 'their claims have just been made'}{unlisted}",
        sku=sku,
        created=created,
        labels=labels,
    )


def _conditions(claim: KubeObject) -> dict[str, KubeObject]:
    return {found["type"]: found for found in claim.get("status", {}).get("conditions", ()) if "type" in found}


def _stage(claim: KubeObject) -> str:
    """Returns the first stage that a claim has not passed, with what its controller says about it."""
    conditions = _conditions(claim)
    if not conditions:
        return "has no status yet; is Karpenter running?"
    for stage in _STAGES:
        condition = conditions.get(stage, {})
        if condition.get("status") != "True":
            words = [str(condition[key]) for key in ("reason", "message") if condition.get(key)]
            return f"is not {stage}" + (f" ({': '.join(words)})" if words else "")
    return "is Ready but names no node yet"


def _refusals(claim: KubeObject) -> list[str]:
    return [
        str(condition.get("message") or condition.get("reason"))
        for condition in _conditions(claim).values()
        if condition.get("status") != "True"
        and _CAPACITY.search(f"{condition.get('reason', '')} {condition.get('message', '')}")
    ]


def _when(event: KubeObject) -> datetime:
    text = event.get("lastTimestamp") or event.get("eventTime") or event.get("metadata", {}).get("creationTimestamp")
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)
