"""The rules that every node provider must keep."""

from kaito_gpu_aws.provider import AWS
from kaito_karpenter import KarpenterProvider
from kaito_karpenter.conformance import KarpenterConformance


class TestAwsProvider(KarpenterConformance):
    """AWS under Karpenter."""

    instance_type = "g5.2xlarge"

    def provider(self) -> KarpenterProvider:
        return KarpenterProvider(AWS)
