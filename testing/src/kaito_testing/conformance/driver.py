"""What the provider suite does with a provider: it asks as the operator does, in a World that the subclass plays.

The rules are in `providers`.
"""

import asyncio
import copy
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from kaito_core.api import NODES, NodeProvider, NodeRequest, NodeState, ResourceType
from kaito_core.errors import BackendError, NotReadyError
from kaito_testing.conformance.world import Objects, World

__all__ = ["ROUNDS", "ProviderDriver", "names"]

ROUNDS = 8  # passes within which things must settle
_REASON = re.compile("[A-Z][A-Za-z0-9]*")


class ProviderDriver:
    """Asks one provider for nodes.

    Attributes:
        instance_type: A machine type that the provider can make; "" if it makes none.
    """

    instance_type: ClassVar[str] = ""

    # What a subclass says and plays

    def provider(self) -> NodeProvider:
        """Returns a new instance of the provider."""
        raise NotImplementedError("provider() must return a new instance of the provider under test")

    def provider_in(self, world: World) -> NodeProvider:
        """Returns a new instance that works in a world; override it to connect the provider with `world.cloud`."""
        return self.provider()

    def world(self, absent: Iterable[ResourceType] = ()) -> World:
        """Returns the world before anything is asked for."""
        return World(absent=absent)

    def fulfil(self, world: World, request: NodeRequest) -> None:
        """Makes `request.count` nodes ready for what the provider has asked for so far, with `world.put`."""
        raise NotImplementedError("fulfil() must do what the cloud does: make nodes of what was asked for")

    def refuse(self, world: World, request: NodeRequest, words: str) -> None:
        """Lets the cloud refuse, in these words, what the provider asks for: the quota is used up."""
        raise NotImplementedError("refuse() must do what the cloud does when it has no machine")

    def lose(self, world: World, node: str) -> None:
        """Removes a ready node, and the object that it was made for."""
        for key, found in world.snapshot().items():
            if key[3] == node or found.get("status", {}).get("nodeName") == node:
                world.remove(key)

    def request(self, **changes: Any) -> NodeRequest:
        """Returns a request for two nodes with a GPU each; `changes` are fields of the request."""
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

    # How the rules ask

    def _ensure(self, world: World, **changes: Any) -> NodeState:
        # Each time a new instance, as after a restart: what a provider must remember is in the world.
        request = self.request(**changes)
        owner = f"{request.namespace}/{request.workspace}"
        request = replace(request, notes=world.notes.get(owner, {}))
        state = asyncio.run(self.provider_in(world).ensure(request, world))
        assert isinstance(state, NodeState), f"ensure must return a NodeState, got {state!r}"
        world.notes[owner] = state.notes
        return state

    def _release(self, world: World) -> bool:
        return asyncio.run(self.provider_in(world).release(self.request(), world))

    def _release_all(self, world: World) -> None:
        for _ in range(ROUNDS):
            if self._release(world):
                return
        pytest.fail(f"release is not True after {ROUNDS} calls, though every deletion took effect")

    def _try(self, world: World, *, releasing: bool = False) -> None:
        """Asks once, and accepts the errors that the operator retries."""
        try:
            if releasing:
                self._release(world)
            else:
                self._ensure(world)
        except (BackendError, NotReadyError):
            pass
        except Exception as error:
            pytest.fail(f"a failed call must end in a BackendError, got {type(error).__name__}: {error}")

    def _settle(self, world: World, **changes: Any) -> NodeState:
        """Asks until all nodes are ready."""
        request = self.request(**changes)
        state = NodeState(())
        for _ in range(ROUNDS):
            self._ensure(world, **changes)
            self.fulfil(world, request)
            state = self._ensure(world, **changes)
            if len(state.ready) >= request.count:
                assert not state.reason, f"all nodes are ready, but reason is '{state.reason}': {state.message}"
                return state
        pytest.fail(f"{len(state.ready)} of {request.count} nodes are ready after {ROUNDS} rounds: {state.message}")

    def _made(self, **changes: Any) -> Objects:
        """The objects that `ensure` makes in an empty cluster; skips for a provider that makes none."""
        self._creates()
        world = self.world()
        before = world.snapshot()
        self._ensure(world, **changes)
        made = {key: found for key, found in world.snapshot().items() if key not in before}
        return made or pytest.skip("this provider makes no Kubernetes objects")

    def _belongings(self, world: World) -> dict[Any, Any]:
        """All that exists in a world but its nodes, without what differs between runs."""
        objects = {key: found for key, found in world.snapshot().items() if key[1] != NODES.kind}
        for found in objects.values():
            found["metadata"].pop("uid", None)
        return {**objects, **copy.deepcopy(world.cloud)}

    def _everything(self, world: World) -> dict[Any, Any]:
        """All that exists in a world."""
        return {**world.snapshot(), **copy.deepcopy(world.cloud)}

    def _creates(self) -> None:
        if not self.provider().creates_nodes:
            pytest.skip("this provider creates no nodes")

    def _has_types(self) -> None:
        self._creates()
        if not self.provider().watches:
            pytest.skip("this provider has no resource types: watches is empty")

    @staticmethod
    def _check_reason(state: NodeState) -> None:
        assert _REASON.fullmatch(state.reason), f"reason must be a CamelCase word while nodes are missing: {state}"
        assert state.message.strip(), f"message must say why nodes are missing, and what to do: {state}"


def names(found: Iterable[Any]) -> str:
    """The keys of belongings, for people."""
    return ", ".join(f"{key[1]} {key[3]}" if isinstance(key, tuple) else str(key) for key in found)
