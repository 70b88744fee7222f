"""The rules that every node provider must keep."""

from kaito_gpu_azure.provider import AzureProvider
from kaito_karpenter.conformance import KarpenterConformance


class TestAzureProvider(KarpenterConformance):
    """Azure under Karpenter."""

    instance_type = "Standard_NC24ads_A100_v4"

    def provider(self) -> AzureProvider:
        return AzureProvider()
