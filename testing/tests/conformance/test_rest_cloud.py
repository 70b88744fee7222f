"""The provider suite for a cloud without Kubernetes objects: a sound provider passes, and broken ones are found."""

import itertools
from typing import Any

import pytest
from rest_cloud import RestProvider, RestSuite, rest_suite_of
from rules import rules, verdict

from kaito_core.api import Cluster, NodeRequest, NodeState
from kaito_testing.conformance import NodeProviderConformance

SERIAL = itertools.count()
#: Rules about objects in the cluster, which this provider does not make.
SKIPPED = {
    "test_absent_types_are_explained",
    "test_objects_name_their_workspace",
    "test_our_labels_are_not_overwritten",
    "test_release_waits_for_what_is_still_there",
}


@pytest.mark.parametrize("rule", sorted(rules(NodeProviderConformance)))
def test_a_sound_provider_passes(rule: str) -> None:
    assert verdict(RestSuite, rule) == ("skipped" if rule in SKIPPED else "")


async def forgets(self: Any, request: NodeRequest, cluster: Cluster) -> NodeState:
    """Makes machines under new names each time, like a provider that remembers in memory what it has made."""
    for _ in range(request.count):
        self.api.create(f"{self.prefix(request)}-{next(SERIAL)}")
    return NodeState((), "MachinesStarting", "none is up")


async def lets_errors_out(self: Any, request: NodeRequest, cluster: Cluster) -> NodeState:
    try:
        return await RestProvider.ensure(self, request, cluster)
    except Exception as error:
        raise OSError("no answer") from error


async def gives_nothing_back(self: Any, request: NodeRequest, cluster: Cluster) -> bool:
    return True


async def gives_one_back(self: Any, request: NodeRequest, cluster: Cluster) -> bool:
    """Gives up what is left once a call has failed."""
    there = self.api.machines(self.prefix(request))
    if len(there) == request.count:
        for name in there:
            self.api.delete(name)
    return True


async def takes_all(self: Any, request: NodeRequest, cluster: Cluster) -> bool:
    for name in self.api.machines(""):
        self.api.delete(name)
    return True


@pytest.mark.parametrize(
    ("rule", "broken", "words"),
    [
        ("test_repetition_changes_nothing", {"ensure": forgets}, "asking again makes"),
        ("test_interrupted_creation_ends_the_same", {"ensure": lets_errors_out}, "must end in a BackendError"),
        ("test_interrupted_creation_ends_the_same", {"ensure": forgets}, "after an interruption"),
        ("test_release_leaves_nothing", {"release": gives_nothing_back}, "nothing is left, but there is"),
        ("test_interrupted_release_ends_the_same", {"release": gives_one_back}, "after an interruption at change"),
        ("test_foreign_objects_are_left_alone", {"release": takes_all}, "objects of others were changed or deleted"),
        ("test_names_are_valid_and_apart", {"prefix": lambda self, request: request.workspace[:9]}, "two Workspaces"),
    ],
)
def test_a_broken_provider_is_found(rule: str, broken: dict[str, Any], words: str) -> None:
    assert words in verdict(rest_suite_of(**broken), rule)
