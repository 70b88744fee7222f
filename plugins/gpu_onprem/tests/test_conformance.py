"""The rules that every node provider must keep."""

from kaito_core.api import NodeRequest
from kaito_gpu_onprem.provider import OnPremProvider
from kaito_testing.conformance import NodeProviderConformance, World


class TestOnPremProvider(NodeProviderConformance):
    """It creates nothing: an administrator does, who is played here."""

    def provider(self) -> OnPremProvider:
        return OnPremProvider()

    def fulfil(self, world: World, request: NodeRequest) -> None:
        for index in range(request.count):
            status = {
                "allocatable": {"nvidia.com/gpu": "1"},
                "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            }
            world.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"gpu-{index}"}, "status": status})
