"""The progress of NodeClaims, from claims, nodes and events to a NodeState. Pure functions.

Messages of Karpenter and the cloud are passed on unchanged. Karpenter deletes a claim if the cloud has no machine or no
quota, and gives the reason in the claim's conditions, in an event, or not at all.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from kaito_core.api.cluster import KubeObject
from kaito_core.api.conditions import timestamp
from kaito_core.api.nodes import NodeRequest, NodeState
from kaito_karpenter.attempts import Attempts
from kaito_karpenter.claims import is_ready, owner_labels
from kaito_karpenter.cloud import KarpenterCloud
from kaito_karpenter.machines import offers_gpus, reported, smallest_sku

__all__ = ["RECENT", "capacity_words", "claims_state", "pending"]

#: How old an event may be to count as the reason for a deletion.
RECENT = timedelta(minutes=5)
_STAGES = ("Launched", "Registered", "Initialized", "Ready")
_CAPACITY = re.compile(
    r"quota|insufficient.{0,16}capacity|all requested instance types were unavailable|sku.?not.?available|"
    r"(allocation|provisioning).?failed|overconstrained|out of capacity|(vcpu|instance).?limit.?exceeded",
    re.IGNORECASE,
)


def capacity_words(events: Iterable[KubeObject], names: Iterable[str], now: datetime) -> str:
    """Returns the message of the newest recent event about missing capacity for one of the claims, or ""."""
    wanted = set(names)
    recent = [
        (when, str(event.get("message", "")))
        for event in events
        if event.get("involvedObject", {}).get("kind") == "NodeClaim"
        and event["involvedObject"].get("name") in wanted
        and _CAPACITY.search(f"{event.get('reason', '')} {event.get('message', '')}")
        and (when := _when(event)) > now - RECENT
    ]
    return max(recent)[1] if recent else ""


def claims_state(
    request: NodeRequest,
    claims: Sequence[KubeObject],
    nodes: Mapping[str, KubeObject | None],
    cloud: KarpenterCloud,
    attempts: Attempts,
) -> NodeState:
    """Returns the state of a Workspace's nodes.

    Args:
        request: The nodes that are needed.
        claims: The claims for it, in order of preference.
        nodes: The nodes of the ready claims, by name; None if a node does not exist.
        cloud: The cloud of the machines.
        attempts: The record of failed claims.
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
    reason, failed, words = _cause(request, claims, waiting, cloud, attempts)
    progress = f"{len(ready)} of {request.count} nodes of type {request.instance_type} are ready"
    return NodeState(tuple(ready), reason, f"{progress}{words}", failed, sku=sku, created=created, labels=labels)


def pending(claims: Iterable[KubeObject]) -> dict[str, str]:
    """Returns the claims that are not ready: by name, the refusal or what each waits for."""
    return {
        claim["metadata"]["name"]: next(iter(_refusals(claim)), "") or _stage(claim)
        for claim in claims
        if not is_ready(claim)
    }


def _cause(
    request: NodeRequest,
    claims: Sequence[KubeObject],
    waiting: Sequence[str],
    cloud: KarpenterCloud,
    attempts: Attempts,
) -> tuple[str, bool, str]:
    """Returns why nodes are missing: the reason, whether waiting will not help, and the message."""
    advice = "Raise your quota there, or choose another region or resource.instanceType"
    if attempts.next_at is not None and len(claims) < request.count:
        again = f"NodeClaims are created again at {timestamp(attempts.next_at)}, attempt {attempts.failures + 1}"
        if _CAPACITY.search(attempts.failure):
            return "InsufficientCapacity", True, f"; {cloud.title} says: {attempts.failure}. {advice}; {again}"
        seen = f" ({attempts.failure})" if attempts.failure else ""
        lost = f"a NodeClaim was deleted before it was ready{seen}; Karpenter's log may say why"
        return "NodeClaimDeleted", True, f": {lost}. {again}"
    if words := next((text for claim in claims for text in _refusals(claim)), ""):
        return "InsufficientCapacity", True, f"; {cloud.title} says: {words}. {advice}"
    before = f"; this is attempt {attempts.failures + 1}, the last one failed: {attempts.failure}"
    nearest = cloud.nearest(request.instance_type) if request.gpus and not cloud.find_sku(request.instance_type) else ""
    unlisted = f". {cloud.title}'s table has no {request.instance_type}; did you mean {nearest}?" if nearest else ""
    words = "; ".join(waiting) or "their NodeClaims have just been created"
    failed = any(_conditions(claim).get("Launched", {}).get("status") == "False" for claim in claims)
    return "NodeClaimNotReady", failed, f": {words}{before if attempts.failures else ''}{unlisted}"


def _conditions(claim: KubeObject) -> dict[str, KubeObject]:
    return {found["type"]: found for found in claim.get("status", {}).get("conditions", ()) if "type" in found}


def _stage(claim: KubeObject) -> str:
    """Returns the first stage that a claim has not reached, with its reason and message."""
    conditions = _conditions(claim)
    if not conditions:
        return "has no status yet; is Karpenter running?"
    for stage in _STAGES:
        condition = conditions.get(stage, {})
        if condition.get("status") != "True":
            words = [str(condition[key]) for key in ("reason", "message") if condition.get(key)]
            return f"is not {stage}" + (f" ({': '.join(words)})" if words else "")
    return "is Ready but has no node name yet"


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
