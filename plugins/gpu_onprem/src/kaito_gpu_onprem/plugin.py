"""The provider of existing nodes."""

from collections.abc import Sequence

from kaito_core import hookimpl
from kaito_core.api import NodeProvider
from kaito_gpu_onprem.provider import OnPremProvider

__all__ = ["kaito_node_providers"]


@hookimpl
def kaito_node_providers() -> Sequence[NodeProvider]:
    """Returns the provider."""
    return (OnPremProvider(),)
