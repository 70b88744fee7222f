"""The objects of a new cluster: a store, and the controllers that every cluster runs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from kaito_testing.kube.objects.collector import Collector
from kaito_testing.kube.objects.controller_manager import ControllerManager
from kaito_testing.kube.objects.options import WriteOptions
from kaito_testing.kube.objects.store import Store
from kaito_testing.kube.objects.verbs import Verbs
from kaito_testing.kube.resources import NAMESPACES

__all__ = ["new_cluster"]

_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


def new_cluster(clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Verbs:
    """Makes an empty cluster with the usual namespaces.

    Args:
        clock: The time that new objects and entries get.

    Returns:
        What writes to it; its `store` is what reads.
    """
    verbs = Verbs(Store(clock))
    verbs.store.listeners += [Collector(verbs).notice, ControllerManager(verbs).notice]
    for name in _NAMESPACES:
        verbs.create(NAMESPACES, "", {"metadata": {"name": name}}, WriteOptions("kube-apiserver"))
    return verbs
