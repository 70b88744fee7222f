"""kopf's handlers: they feed what the watches tell to the operator, and do nothing else.

All of them are `on.event` handlers, for which kopf writes no annotation and no finalizer.
"""

from collections.abc import Callable, Iterable
from typing import Any

import kopf

from kaito_core.api import KubeObject, ResourceType
from kaito_core.controller.watch.cache import Watched

__all__ = ["Feed", "register"]

Feed = Callable[[ResourceType, KubeObject, bool], None]  #: kind, object, whether it is gone


def register(registry: kopf.OperatorRegistry, watched: Iterable[Watched], feed: Feed) -> None:
    """Registers a handler for each kind that is watched."""
    for item in watched:
        _register(registry, item.resource, feed)


def _register(registry: kopf.OperatorRegistry, resource: ResourceType, feed: Feed) -> None:
    async def observe(event: Any, **_: Any) -> None:
        feed(resource, dict(event["object"]), event["type"] == "DELETED")

    kopf.on.event(
        group=resource.group,
        version=resource.version,
        plural=resource.plural,
        id=f"observe-{resource.plural}",
        registry=registry,
    )(observe)
