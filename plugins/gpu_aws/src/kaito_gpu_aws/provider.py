"""AWS as a record for `kaito_karpenter`, which creates the nodes."""

import re

from kaito_gpu_aws.skus import SKUS
from kaito_karpenter import KarpenterCloud, NodeClass

__all__ = ["AWS"]

_SIZE = r"\.(nano|micro|small|medium|\d*x?large|metal(-\d+xl)?)"

AWS = KarpenterCloud(
    name="gpu_aws",
    title="AWS",
    skus=SKUS,
    # Series and generation, size: g5.2xlarge, u-6tb1.metal.
    type_pattern=re.compile(rf"[a-z]+(-?\d)[a-z0-9-]*{_SIZE}", re.ASCII),
    cpu_pattern=re.compile(rf"(a|c|d|h|hpc|i|im|is|m|r|t|x|z)\d[a-z0-9-]*{_SIZE}", re.ASCII),
    node_class=NodeClass("default", "EC2NodeClass", "karpenter.k8s.aws"),
    label_domains=("karpenter.k8s.aws", "k8s.aws"),
    gpu_memory_label="karpenter.k8s.aws/instance-gpu-memory",
    # Graviton, the "g" after the generation as in g5g, its first, and Grace with its GPUs.
    arm_pattern=re.compile(r"([a-z]+\d+[a-z]*g[a-z]*|a1|[a-z]+\d+[a-z]*-gb\d+)\.[a-z0-9-]+", re.ASCII),
)
