"""AWS under Karpenter, as a record. What is done with it is `kaito_karpenter`'s business."""

import re

from kaito_gpu_aws.skus import SKUS
from kaito_karpenter import KarpenterCloud, NodeClass

__all__ = ["AWS"]

AWS = KarpenterCloud(
    name="gpu_aws",
    title="AWS",
    skus=SKUS,
    type_pattern=re.compile(r"[a-z][a-z0-9-]*\.[a-z0-9-]+", re.ASCII),
    node_class=NodeClass("default", "EC2NodeClass", "karpenter.k8s.aws"),
    label_domains=("karpenter.k8s.aws", "k8s.aws"),
    # Graviton, the "g" after the generation as in g5g, its first, and Grace with its GPUs.
    arm_pattern=re.compile(r"([a-z]+\d+[a-z]*g[a-z]*|a1|[a-z]+\d+[a-z]*-gb\d+)\.[a-z0-9-]+", re.ASCII),
)
