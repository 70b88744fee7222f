"""The provider of AWS nodes keeps the rules of every node provider."""

from kaito_core.api.karpenter import KarpenterProvider
from kaito_core.testing.conformance import KarpenterConformance
from kaito_gpu_aws.provider import AWS


class TestAwsProvider(KarpenterConformance):
    """AWS under Karpenter."""

    instance_type = "g5.2xlarge"

    def provider(self) -> KarpenterProvider:
        return KarpenterProvider(AWS)
