"""Nodes through Karpenter (`karpenter.sh/v1`), for plugins of any cloud, which is described by a `KarpenterCloud`.

`cloud` is the record, `choices` and `checks` what a Workspace may ask for, `claims` what is asked of Karpenter,
`progress` and `machines` what becomes of it, `attempts` when it is asked again, `provider` the only part that talks to
a cluster. Nothing here knows of a particular cloud.
"""

from kaito_karpenter.claims import NODECLAIMS
from kaito_karpenter.cloud import KarpenterCloud, NodeClass
from kaito_karpenter.provider import KarpenterProvider

__all__ = ["NODECLAIMS", "KarpenterCloud", "KarpenterProvider", "NodeClass"]
