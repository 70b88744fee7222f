"""Azure under Karpenter, as a record. What is done with it is `kaito_karpenter`'s business."""

import re

from kaito_gpu_azure.skus import SKUS
from kaito_karpenter import KarpenterCloud, KarpenterProvider, NodeClass

__all__ = ["AZURE", "AzureProvider"]

AZURE = KarpenterCloud(
    name="gpu_azure",
    title="Azure",
    skus=SKUS,
    type_pattern=re.compile(r"standard_\w+", re.ASCII | re.IGNORECASE),
    # The gpu-provisioner's node class is KaitoNodeClass in the group kaito.sh: the settings can name it.
    node_class=NodeClass("default", "AKSNodeClass", "karpenter.azure.com"),
    label_domains=("karpenter.azure.com",),
    # The feature "p" after the size, as in D2ps_v5, and Grace with its GPUs.
    arm_pattern=re.compile(
        r"standard_[a-z]+\d+(-\d+)?[a-z]*p[a-z]*(_\w+)?|standard_\w+_gb\d+\w*", re.ASCII | re.IGNORECASE
    ),
)


class AzureProvider(KarpenterProvider):
    """Makes Azure nodes."""

    def __init__(self, cloud: KarpenterCloud = AZURE) -> None:
        """Does no I/O; `cloud` is Azure with another node class, where there is one."""
        super().__init__(cloud)
