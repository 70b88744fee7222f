"""The conformance suite of node providers with a simulated Karpenter, for providers that create NodeClaims."""

from datetime import UTC, datetime

from kaito_core.api import NodeRequest
from kaito_karpenter import NODECLAIMS
from kaito_testing.conformance.providers import NodeProviderConformance
from kaito_testing.conformance.world import World

__all__ = ["KarpenterConformance"]

_STAGES = ("Launched", "Registered", "Initialized", "Ready")


class KarpenterConformance(NodeProviderConformance):
    """Rules for a node provider that uses Karpenter.

    Example:
        class TestAcmeProvider(KarpenterConformance):
            instance_type = "acme-gpu-1"

            def provider(self):
                return KarpenterProvider(ACME)
    """

    def fulfil(self, world: World, request: NodeRequest) -> None:
        """Creates a node with GPUs for every NodeClaim that has none."""
        for key, claim in world.snapshot().items():
            if key[1] != NODECLAIMS.kind or claim.get("status", {}).get("nodeName"):
                continue
            name = f"node-{key[3]}"
            conditions = [{"type": stage, "status": "True", "reason": stage} for stage in _STAGES]
            world.patch_status(NODECLAIMS, key[3], {"nodeName": name, "conditions": conditions})
            status = {
                "allocatable": {"nvidia.com/gpu": "1"},
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            }
            world.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status})

    def refuse(self, world: World, request: NodeRequest, words: str) -> None:
        """Deletes the NodeClaims and gives the reason in Events, as Karpenter does if a cloud has no machine."""
        for key in world.snapshot():
            if key[1] != NODECLAIMS.kind:
                continue
            world.remove(key)
            world.put(
                {
                    "apiVersion": "v1",
                    "kind": "Event",
                    "metadata": {"name": f"{key[3]}.refused", "namespace": "default"},
                    "involvedObject": {"kind": NODECLAIMS.kind, "name": key[3]},
                    "reason": "InsufficientCapacityError",
                    "message": words,
                    "lastTimestamp": datetime.now(UTC).isoformat(),
                }
            )

    def test_a_claim_that_vanishes_is_not_made_again_at_once(self) -> None:
        """Karpenter may delete a claim without a word; making it again at once would repeat that within the second."""
        world = self.world()
        self._ensure(world)
        for key in world.snapshot():
            if key[1] == NODECLAIMS.kind:
                world.remove(key)
        state = self._ensure(world)
        assert not [key for key in world.snapshot() if key[1] == NODECLAIMS.kind], "the claims are made again at once"
        assert state.failed and state.wake_after_seconds, "it must say that this failed, and when to call again"
        self._check_reason(state)
