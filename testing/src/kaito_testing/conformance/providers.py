"""The rules for plugins that bring node providers: create, observe, lose, release, repeated and interrupted."""

import asyncio
import re
from collections.abc import Iterable
from typing import Any, ClassVar

import pytest

from kaito_core.api import NODES, NodeProvider, NodeRequest, NodeState, ResourceType
from kaito_core.api.workload import WORKSPACE_LABEL, WORKSPACE_NAMESPACE_LABEL
from kaito_core.errors import BackendError, CapacityError, NotReadyError, PluginError, ProviderError, WorkspaceError
from kaito_testing.conformance.guards import no_io, no_waiting
from kaito_testing.conformance.world import Objects, World
from kaito_testing.registry import registry_with

__all__ = ["NodeProviderConformance"]

_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_REASON = re.compile("[A-Z][A-Za-z0-9]*")
_ROUNDS = 8  # passes within which things must settle
_MOST_WRITES = 50
_WORDS = "the quota of 8 for the family conformance-gpu is used up (code 4711)"


class NodeProviderConformance:
    """Rules for one node provider.

    A subclass says which provider, and plays the world around it: `fulfil` does what the cloud does when all goes well,
    `refuse` what it does when it has no machine. Providers that use Karpenter subclass
    `kaito_karpenter.conformance.KarpenterConformance`, which plays Karpenter.

    Example:
        class TestAcmeProvider(NodeProviderConformance):
            instance_type = "acme-gpu-1"

            def provider(self):
                return AcmeProvider()

            def fulfil(self, world, request): ...

            def refuse(self, world, request, words): ...

    Attributes:
        instance_type: A machine type that the provider can make; "" where it makes none.
    """

    instance_type: ClassVar[str] = ""

    def provider(self) -> NodeProvider:
        """Returns a new instance of the provider."""
        raise NotImplementedError("provider() must return a new instance of the provider under test")

    def world(self, absent: Iterable[ResourceType] = ()) -> World:
        """Returns the cluster before anything is asked for."""
        return World(absent=absent)

    def fulfil(self, world: World, request: NodeRequest) -> None:
        """Makes `request.count` nodes ready for what the provider has asked for so far, with `world.put`."""
        raise NotImplementedError("fulfil() must do what the cloud does: make nodes of what was asked for")

    def refuse(self, world: World, request: NodeRequest, words: str) -> None:
        """Lets the cloud refuse what the provider has asked for so far, for want of quota, in these words."""
        raise NotImplementedError("refuse() must do what the cloud does when it has no machine")

    def lose(self, world: World, node: str) -> None:
        """Takes a ready node away, and what became it."""
        for key, found in world.snapshot().items():
            if key[3] == node or found.get("status", {}).get("nodeName") == node:
                world.remove(key)

    def request(self, **changes: Any) -> NodeRequest:
        """Returns a request for two nodes with a GPU each."""
        given: dict[str, Any] = {
            "workspace": "conformance",
            "namespace": "team",
            "uid": "7b0e3c5a-0000-4000-8000-000000000001",
            "count": 2,
            "instance_type": self.instance_type,
            "gpus": 1,
            "gpu_memory_gib": 1.0,
            "disk_gib": 50.0,
        }
        return NodeRequest(**{**given, **changes})

    # What it is

    def test_constructor_does_no_io(self) -> None:
        """The constructor runs at every start, so it touches neither network nor files."""
        with no_io():
            self.provider()

    def test_registry_takes_it(self) -> None:
        """It has every member of the Protocol, and a name of its own."""
        provider = self.provider()
        assert isinstance(provider, NodeProvider), f"{type(provider).__name__} lacks a member of NodeProvider"
        try:
            registry_with(providers=[provider])
        except PluginError as error:
            pytest.fail(f"the provider is refused: {error}")
        assert isinstance(provider.creates_nodes, bool), "creates_nodes must be True or False"
        assert all(isinstance(resource, ResourceType) for resource in provider.watches), "watches must be ResourceTypes"

    def test_skus_are_a_table(self) -> None:
        """Machine types are unique whatever the case of their letters, with GPUs and memory."""
        skus = list(self.provider().skus())
        names = [sku.name.casefold() for sku in skus]
        twice = sorted({name for name in names if names.count(name) > 1})
        assert not twice, f"skus: {', '.join(twice)} is there twice"
        empty = [sku.name for sku in skus if not sku.name or sku.gpus < 1 or sku.gpu_memory_gib <= 0]
        assert not empty, f"skus: {', '.join(empty)} must have a name, GPUs and GPU memory in GiB"

    # Creating and observing

    def test_says_what_is_missing(self) -> None:
        """While nodes are missing, the state has a CamelCase reason and a message."""
        state = self._ensure(self.world())
        assert len(state.ready) < 2, "nodes are ready in an empty cluster"
        self._check_reason(state)

    def test_nodes_get_ready(self) -> None:
        """Once the cloud has done its part, the state has the nodes and no reason."""
        world = self.world()
        state = self._settle(world)
        nodes = {key[3] for key in world.snapshot() if key[1] == NODES.kind}
        assert set(state.ready) <= nodes, f"ready names what is no node: {', '.join(set(state.ready) - nodes)}"
        assert len(set(state.ready)) == len(state.ready), "a node is ready twice"

    def test_repetition_changes_nothing(self) -> None:
        """Asking again makes nothing more, before nodes are ready and after; then it writes nothing at all."""
        world = self.world()
        self._ensure(world)
        once = world.snapshot()
        self._ensure(world)
        assert set(world.snapshot()) == set(once), f"asking again makes {_names(world.snapshot(), once)}"
        state = self._settle(world)
        settled = world.snapshot()
        world.calls.clear()
        assert self._ensure(world) == state, "the state differs though nothing has changed"
        assert world.calls == [], f"it writes though nothing has changed: {world.calls}"
        assert world.snapshot() == settled

    @pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
    def test_interrupted_creation_ends_the_same(self, applied: bool) -> None:
        """Cut off at any write, before or after it took effect, and restarted, it ends with the same objects."""
        expected = self.world()
        self._ensure(expected)
        for write in range(1, _MOST_WRITES):
            world = self.world()
            world.interrupt(write, applied=applied)
            self._try(world)
            if not world.interrupted:
                return
            self._ensure(world)
            assert _plain(world.snapshot()) == _plain(expected.snapshot()), (
                f"after an interruption {'after' if applied else 'before'} write {write} there are "
                f"{sorted(key[3] for key in world.snapshot())}, without one {sorted(k[3] for k in expected.snapshot())}"
            )

    def test_does_not_wait(self) -> None:
        """`ensure` and `release` return at once; what is not ready is asked for again."""
        world = self.world()
        with no_waiting():
            self._ensure(world)
            self._release(world)

    def test_lost_node_is_replaced(self) -> None:
        """A node that goes away is ready no more, and its replacement is."""
        world = self.world()
        (lost, *_) = self._settle(world).ready
        self.lose(world, lost)
        state = self._ensure(world)
        assert lost not in state.ready, f"{lost} is said to be ready, but it is gone"
        if len(state.ready) < 2:
            self._check_reason(state)
        self._settle(world)

    def test_fewer_nodes_give_the_others_back(self) -> None:
        """With a smaller count, what is too much goes."""
        world = self.world()
        self._settle(world)
        before = self._settle(world, count=1)
        self._creates()
        assert len(before.created) == 1, f"one node is asked for, {', '.join(before.created)} are kept"

    def test_refusal_is_passed_on(self) -> None:
        """Where the cloud has no machine, its own words reach the user, in a CapacityError or a failed state."""
        self._creates()
        world = self.world()
        self._ensure(world)
        self.refuse(world, self.request(), _WORDS)
        try:
            state = self._ensure(world)
        except CapacityError as error:
            said = str(error)
        else:
            assert state.failed, "the cloud has refused, so failed must be True: waiting will not help"
            self._check_reason(state)
            said = state.message
        assert _WORDS in said, f"the cloud's words are not passed on: {said!r}"

    def test_absent_types_are_explained(self) -> None:
        """In a cluster that lacks its resource types, `ensure` raises a ProviderError that says what to install."""
        self._creates()
        with pytest.raises(ProviderError):
            self._ensure(self.world(self.provider().watches))

    # Whose objects are whose

    def test_objects_name_their_workspace(self) -> None:
        """What it makes has the Workspace's labels and is of a watched type: otherwise nobody wakes the Workspace."""
        watched = {(resource.api_version, resource.kind) for resource in self.provider().watches}
        for key, made in self._made().items():
            labels = made["metadata"].get("labels", {})
            assert (labels.get(WORKSPACE_LABEL), labels.get(WORKSPACE_NAMESPACE_LABEL)) == ("conformance", "team"), (
                f"{key[1]} {key[3]} lacks the labels {WORKSPACE_LABEL} and {WORKSPACE_NAMESPACE_LABEL}"
            )
            assert key[:2] in watched, f"watches lacks {key[1]} in {key[0]}, which the provider makes"

    def test_our_labels_are_not_overwritten(self) -> None:
        """A Workspace's label selector cannot change whose an object is."""
        honest = self._made()
        for label in (WORKSPACE_LABEL, WORKSPACE_NAMESPACE_LABEL, "app.kubernetes.io/managed-by"):
            try:
                made = self._made(match_labels={label: "stolen"})
            except WorkspaceError:
                continue
            for key, found in made.items():
                labels = found["metadata"].get("labels", {})
                ours = next(iter(honest.values()))["metadata"].get("labels", {})
                assert labels.get(label) == ours.get(label), f"{key[1]} {key[3]}: a selector overwrites {label}"

    def test_names_are_valid_and_apart(self) -> None:
        """Names are DNS labels, also for the longest Workspace name, and differ between Workspaces."""
        made = [
            self._made(),
            self._made(namespace="other"),
            self._made(workspace="other"),
            self._made(workspace="w" * 63, namespace="n" * 63),
        ]
        for objects in made:
            for key in objects:
                assert _LABEL.fullmatch(key[3]), f"{key[1]} '{key[3]}' is no DNS label of at most 63 characters"
        keys = [key for objects in made for key in objects]
        assert len(set(keys)) == len(keys), "two Workspaces would share objects: make names of both name and namespace"

    def test_foreign_objects_are_left_alone(self) -> None:
        """Creating and releasing touches neither another Workspace's objects nor anybody else's."""
        world = self.world()
        self._settle(world, workspace="other")
        bystander = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs", "namespace": "team"}}
        world.put(bystander)
        before = world.snapshot()
        self._settle(world)
        self._release_all(world)
        after = world.snapshot()
        touched = [f"{key[1]} {key[3]}" for key, found in before.items() if after.get(key) != found]
        assert not touched, f"objects of others were changed or deleted: {', '.join(touched)}"

    # Giving back

    def test_release_leaves_nothing(self) -> None:
        """`release` gives everything back, says so, and says so again."""
        world = self.world()
        before = world.snapshot()
        self._settle(world)
        self._release_all(world)
        left = {key: found for key, found in world.snapshot().items() if key[1] != NODES.kind and key not in before}
        assert not left, f"release says that nothing is left, but there is {_names(left, {})}"
        world.calls.clear()
        assert self._release(world) is True, "release must stay True once nothing is left"
        assert world.calls == [], f"there is nothing to release, but it writes: {world.calls}"

    def test_release_waits_for_what_is_still_there(self) -> None:
        """While an object of its is being deleted, `release` is False, and does not delete it again."""
        self._creates()
        world = self.world()
        before = world.snapshot()
        self._settle(world)
        for key, found in world.snapshot().items():
            if key[1] != NODES.kind and key not in before:
                found["metadata"]["finalizers"] = ["example.com/conformance"]
                world.put(found)
        assert not any(self._release(world) for _ in range(2)), "release says True while objects are being deleted"
        world.calls.clear()
        assert self._release(world) is False
        assert world.calls == [], f"what is being deleted already is deleted again: {world.calls}"
        world.finish_deletions()
        self._release_all(world)

    @pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
    def test_interrupted_release_ends_the_same(self, applied: bool) -> None:
        """Cut off at any write and restarted, `release` still leaves nothing."""
        for write in range(1, _MOST_WRITES):
            world = self.world()
            before = world.snapshot()
            self._settle(world)
            world.interrupt(write, applied=applied)
            self._try(world, releasing=True)
            if not world.interrupted:
                return
            self._release_all(world)
            left = {key: found for key, found in world.snapshot().items() if key[1] != NODES.kind and key not in before}
            assert not left, f"after an interruption at write {write} of release there is {_names(left, {})}"

    def test_absent_types_count_as_gone(self) -> None:
        """In a cluster that lacks its resource types, `release` is True: a Workspace can always be deleted."""
        world = self.world(self.provider().watches)
        try:
            done = self._release(world)
        except Exception as error:
            pytest.fail(f"release raises {type(error).__name__}, so that the Workspace could never be deleted: {error}")
        assert done is True, "release must be True where its resource types are absent"

    # How the rules ask

    def _ensure(self, world: World, **changes: Any) -> NodeState:
        # Each time a new instance, as after a restart: what a provider must remember is in the cluster.
        state = asyncio.run(self.provider().ensure(self.request(**changes), world))
        assert isinstance(state, NodeState), f"ensure must return a NodeState, got {state!r}"
        return state

    def _release(self, world: World) -> bool:
        return asyncio.run(self.provider().release(self.request(), world))

    def _release_all(self, world: World) -> None:
        for _ in range(_ROUNDS):
            if self._release(world):
                return
        pytest.fail(f"release is not True after {_ROUNDS} calls, though every deletion took effect")

    def _try(self, world: World, *, releasing: bool = False) -> None:
        try:
            if releasing:
                self._release(world)
            else:
                self._ensure(world)
        except (BackendError, NotReadyError):
            pass
        except Exception as error:
            pytest.fail(f"a failed write must end in a BackendError, got {type(error).__name__}: {error}")

    def _settle(self, world: World, **changes: Any) -> NodeState:
        request = self.request(**changes)
        state = NodeState(())
        for _ in range(_ROUNDS):
            self._ensure(world, **changes)
            self.fulfil(world, request)
            state = self._ensure(world, **changes)
            if len(state.ready) >= request.count:
                assert not state.reason, f"all nodes are ready, but reason is '{state.reason}': {state.message}"
                return state
        pytest.fail(f"{len(state.ready)} of {request.count} nodes are ready after {_ROUNDS} rounds: {state.message}")

    def _made(self, **changes: Any) -> Objects:
        """What `ensure` makes in an empty cluster; the test is skipped where the provider makes nothing."""
        self._creates()
        world = self.world()
        before = world.snapshot()
        self._ensure(world, **changes)
        return {key: found for key, found in world.snapshot().items() if key not in before}

    def _creates(self) -> None:
        if not self.provider().creates_nodes:
            pytest.skip("this provider creates no nodes")

    @staticmethod
    def _check_reason(state: NodeState) -> None:
        assert _REASON.fullmatch(state.reason), f"reason must be a CamelCase word while nodes are missing: {state}"
        assert state.message.strip(), f"message must say why nodes are missing, and what to do: {state}"


def _names(objects: Objects, known: Objects) -> str:
    return ", ".join(f"{key[1]} {key[3]}" for key in objects if key not in known)


def _plain(objects: Objects) -> Objects:
    """Returns objects without what differs between runs."""
    for found in objects.values():
        found["metadata"].pop("uid", None)
    return objects
