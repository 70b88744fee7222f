"""Azure as a record for `kaito_karpenter`, which creates the nodes."""

import re
from collections.abc import Callable
from datetime import datetime

from kaito_gpu_azure.skus import SKUS
from kaito_karpenter import KarpenterCloud, KarpenterProvider, NodeClass
from kaito_karpenter.provider import utc_now

__all__ = ["AZURE", "AzureProvider"]


def _named(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII | re.IGNORECASE)


AZURE = KarpenterCloud(
    name="gpu_azure",
    title="Azure",
    skus=SKUS,
    # Series, number of CPUs, features, accelerator, version: Standard_NC24ads_A100_v4.
    type_pattern=_named(r"standard_[a-z]+\d+(-\d+)?[a-z]*(_[a-z0-9]+)*"),
    cpu_pattern=_named(r"standard_[abdefhlm][a-z]*\d\w*(-\w+)?"),
    # For the gpu-provisioner, the settings name its node class: KaitoNodeClass in the group kaito.sh.
    node_class=NodeClass("default", "AKSNodeClass", "karpenter.azure.com"),
    label_domains=("karpenter.azure.com",),
    # The feature "p", as in D2ps_v5, and Grace with its GPUs.
    arm_pattern=_named(r"standard_[a-z]+\d+(-\d+)?[a-z]*p[a-z]*(_\w+)?|standard_\w+_gb\d+\w*"),
)


class AzureProvider(KarpenterProvider):
    """Creates Azure nodes."""

    def __init__(self, cloud: KarpenterCloud = AZURE, now: Callable[[], datetime] = utc_now) -> None:
        """Does no I/O. `cloud` is Azure with the options of the plugin, `now` the clock."""
        super().__init__(cloud, now)
