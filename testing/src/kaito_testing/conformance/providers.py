"""The rules for plugins that bring node providers: create, observe, lose, release, repeated and interrupted."""

import re

import pytest

from kaito_core.api import NODES, NodeProvider, ResourceType
from kaito_core.api.workload import WORKSPACE_LABEL, WORKSPACE_NAMESPACE_LABEL
from kaito_core.errors import CapacityError, PluginError, ProviderError, WorkspaceError
from kaito_testing.conformance.driver import ProviderDriver, names
from kaito_testing.conformance.guards import no_io, no_waiting
from kaito_testing.registry import registry_with

__all__ = ["NodeProviderConformance"]

_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MOST_CHANGES = 50
_WORDS = "the quota of 8 for the family conformance-gpu is used up (code 4711)"


class NodeProviderConformance(ProviderDriver):
    """Rules for one node provider.

    A subclass says which provider, and plays the cloud: `fulfil` does what the cloud does when all goes well, `refuse`
    what it does when it has no machine. For a provider that uses Karpenter, subclass
    `kaito_karpenter.conformance.KarpenterConformance` instead, which plays Karpenter.

    Example:
        class TestAcmeProvider(NodeProviderConformance):
            instance_type = "acme-gpu-1"

            def provider(self):
                return AcmeProvider()

            def fulfil(self, world, request): ...

            def refuse(self, world, request, words): ...

    A cloud with an API of its own has its state in `world.cloud`, and its calls in `world.cloud_call`:

        class TestNimbusProvider(NodeProviderConformance):
            def provider_in(self, world):
                return NimbusProvider(client=PlayedNimbus(world))

        class PlayedNimbus:
            async def create(self, name):
                with self.world.cloud_call("create"):
                    self.world.cloud[name] = {"state": "starting"}

    Attributes:
        instance_type: A machine type that the provider can make; "" if it makes none.
    """

    # What it is

    def test_constructor_does_no_io(self) -> None:
        """The constructor runs at every start, so it uses neither network nor files."""
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
        found = [sku.name.casefold() for sku in skus]
        twice = sorted({name for name in found if found.count(name) > 1})
        assert not twice, f"skus: duplicate {', '.join(twice)}"
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
        unknown = set(state.ready) - nodes
        assert not unknown, f"ready must hold names of nodes, got {', '.join(sorted(unknown))}"
        assert len(set(state.ready)) == len(state.ready), f"ready has duplicates: {', '.join(state.ready)}"

    def test_repetition_changes_nothing(self) -> None:
        """Asking again makes nothing more, before nodes are ready and after; then it writes nothing at all."""
        world = self.world()
        self._ensure(world)
        once = self._belongings(world)
        self._ensure(world)
        more = self._belongings(world).keys() - once.keys()
        assert not more, f"asking again makes {names(more)}"
        state = self._settle(world)
        settled = self._belongings(world)
        world.calls.clear()
        assert self._ensure(world) == state, "the state differs though nothing has changed"
        assert world.calls == [], f"it writes though nothing has changed: {world.calls}"
        assert self._belongings(world) == settled

    @pytest.mark.parametrize("applied", [False, True], ids=["before", "after"])
    def test_interrupted_creation_ends_the_same(self, applied: bool) -> None:
        """Cut off at any change, before or after it took effect, and restarted, it ends with the same objects."""
        expected = self.world()
        self._ensure(expected)
        for change in range(1, _MOST_CHANGES):
            world = self.world()
            world.interrupt(change, applied=applied)
            self._try(world)
            if not world.interrupted:
                return
            self._ensure(world)
            assert self._belongings(world) == self._belongings(expected), (
                f"after an interruption {'after' if applied else 'before'} change {change} there are "
                f"{names(self._belongings(world))}; without one {names(self._belongings(expected))}"
            )

    def test_does_not_wait(self) -> None:
        """`ensure` and `release` return at once; the operator asks again for what is not ready."""
        world = self.world()
        with no_waiting():
            self._ensure(world)
            self._release(world)

    def test_lost_node_is_replaced(self) -> None:
        """A node that is gone is no longer ready, and its replacement is."""
        world = self.world()
        (lost, *_) = self._settle(world).ready
        self.lose(world, lost)
        state = self._ensure(world)
        assert lost not in state.ready, f"ready still has {lost}, which is gone"
        if len(state.ready) < 2:
            self._check_reason(state)
        self._settle(world)

    def test_fewer_nodes_give_the_others_back(self) -> None:
        """With a smaller count, the surplus is given back."""
        world = self.world()
        self._settle(world)
        before = self._settle(world, count=1)
        self._creates()
        assert len(before.created) == 1, f"one node is asked for, {', '.join(before.created)} are kept"

    def test_refusal_is_passed_on(self) -> None:
        """If the cloud has no machine, its own words reach the user, in a CapacityError or a failed state."""
        self._creates()
        world = self.world()
        try:
            self._ensure(world)
            self.refuse(world, self.request(), _WORDS)
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
        self._has_types()
        with pytest.raises(ProviderError):
            self._ensure(self.world(self.provider().watches))

    # Whose objects are whose

    def test_objects_name_their_workspace(self) -> None:
        """What it makes has the Workspace's labels and is of a watched type: otherwise nothing wakes the Workspace."""
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
        self._creates()
        made: list[object] = []
        longest = {"workspace": "w" * 63, "namespace": "n" * 63}
        for changes in ({}, {"namespace": "other"}, {"workspace": "other"}, longest):
            world = self.world()
            before = self._belongings(world)
            self._ensure(world, **changes)
            made += [key for key in self._belongings(world) if key not in before]
        for key in made:
            name = key[3] if isinstance(key, tuple) else str(key)
            assert _LABEL.fullmatch(name), f"'{names([key])}' must be a DNS label of at most 63 characters"
        assert len(set(made)) == len(made), "two Workspaces would share objects: make names of both name and namespace"

    def test_foreign_objects_are_left_alone(self) -> None:
        """Creating and releasing touches neither another Workspace's objects nor anybody else's."""
        world = self.world()
        self._settle(world, workspace="other")
        bystander = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs", "namespace": "team"}}
        world.put(bystander)
        before = self._everything(world)
        self._settle(world)
        self._release_all(world)
        after = self._everything(world)
        touched = [key for key, found in before.items() if after.get(key) != found]
        assert not touched, f"objects of others were changed or deleted: {names(touched)}"

    # Giving back

    def test_release_leaves_nothing(self) -> None:
        """`release` gives everything back, says so, and says so again."""
        world = self.world()
        before = self._belongings(world)
        self._settle(world)
        self._release_all(world)
        left = self._belongings(world).keys() - before.keys()
        assert not left, f"release says that nothing is left, but there is {names(left)}"
        world.calls.clear()
        assert self._release(world) is True, "release must stay True once nothing is left"
        assert world.calls == [], f"there is nothing to release, but it writes: {world.calls}"

    def test_release_waits_for_what_is_still_there(self) -> None:
        """While an object of its own is being deleted, `release` is False, and does not delete it again."""
        self._has_types()
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
        """Cut off at any change and restarted, `release` still leaves nothing."""
        for change in range(1, _MOST_CHANGES):
            world = self.world()
            before = self._belongings(world)
            self._settle(world)
            world.interrupt(change, applied=applied)
            self._try(world, releasing=True)
            if not world.interrupted:
                return
            self._release_all(world)
            left = self._belongings(world).keys() - before.keys()
            assert not left, f"after an interruption at change {change} of release there is {names(left)}"

    def test_absent_types_count_as_gone(self) -> None:
        """In a cluster that lacks its resource types, `release` is True: a Workspace can always be deleted."""
        world = self.world(self.provider().watches)
        try:
            done = self._release(world)
        except Exception as error:
            pytest.fail(f"release raises {type(error).__name__}, so that the Workspace could never be deleted: {error}")
        assert done is True, "release must be True if its resource types are absent"
