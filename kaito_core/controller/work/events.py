"""Events about a Workspace, which `kubectl describe` shows: one for each change of a condition."""

import logging
import uuid
from datetime import datetime

from kaito_core.api import KubeObject
from kaito_core.api.conditions import timestamp
from kaito_core.api.workload import MANAGER
from kaito_core.controller.cluster import KubernetesCluster
from kaito_core.controller.resources import EVENTS
from kaito_core.errors import ClusterError
from kaito_core.reconcile.transition import Event

__all__ = ["emit", "event_manifest"]

log = logging.getLogger(__name__)

_MESSAGE_LIMIT = 1024  # characters, the API's


def event_manifest(document: KubeObject, event: Event, now: datetime) -> KubeObject:
    """Returns an event about an object."""
    metadata = document["metadata"]
    component = f"{MANAGER}-operator"
    return {
        "apiVersion": EVENTS.api_version,
        "kind": EVENTS.kind,
        "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": document["apiVersion"],
            "kind": document["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata.get("uid", ""),
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:_MESSAGE_LIMIT],
        "source": {"component": component},
        "reportingComponent": component,
        "firstTimestamp": timestamp(now),
        "lastTimestamp": timestamp(now),
        "count": 1,
    }


async def emit(cluster: KubernetesCluster, document: KubeObject, event: Event, now: datetime) -> None:
    """Writes an event and logs it; an event that cannot be written is not retried."""
    level = logging.WARNING if event.type == "Warning" else logging.INFO
    log.log(level, "%s: %s", event.reason, event.message, extra={"action": "Status", "reason": event.reason})
    try:
        await cluster.create(EVENTS, event_manifest(document, event, now))
    except ClusterError as error:
        log.warning("the event could not be written: %s", error, extra={"action": "Event", "reason": "Failed"})
