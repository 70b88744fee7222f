"""What a Workspace says that has no effect here: named in the status, in an event and by the command line.

Documents that were written for upstream apply unchanged, so that this is no fault.
"""

from collections.abc import Iterator

from kaito_core.api import Workspace
from kaito_core.reconcile.objects.service import LOAD_BALANCER_ANNOTATION
from kaito_core.reconcile.options.serving import CONFIG_KEY, ServingOptions

__all__ = ["unused"]

#: Annotations of upstream's, and why they change nothing.
_ANNOTATIONS = {
    "kaito.sh/runtime": "there is one server, kaito's own",
    "kaito.sh/bypass-resource-checks": "what does not fit is not made",
    "kaito.sh/node-image-family": "the node class says it",
    "kaito.sh/disable-benchmark": "no benchmark is run",
    "kaito.sh/performance-mode": f"options of the server are in {CONFIG_KEY} of inference.config",
    "kaito.sh/use-local-weights": "inference.weights says where weights are kept",
    "kaito.sh/model-streaming": "weights are fetched before the server starts",
    "kaito.sh/model-mirror-storage-class": "inference.weights says where weights are kept",
    "kaito.sh/streaming-service-account": "inference.pod.serviceAccountName says it",
}


def unused(workspace: Workspace, options: ServingOptions) -> tuple[str, ...]:
    """Returns what has no effect, one sentence for each.

    Args:
        workspace: The Workspace.
        options: What its ConfigMap says about serving.
    """
    return (*_of_document(workspace), *_of_config(workspace, options))


def _of_document(workspace: Workspace) -> Iterator[str]:
    for name, value in sorted(workspace.metadata.annotations.items()):
        if name in _ANNOTATIONS:
            yield f"metadata.annotations[{name}] is not used: {_ANNOTATIONS[name]}"
        elif name == LOAD_BALANCER_ANNOTATION and value not in ("True", "False", "false", ""):
            yield f"metadata.annotations[{name}] is not used: only the value True is, got '{value}'"
    if workspace.inference.template is not None and workspace.inference.config:
        yield "inference.config is not used: the server of a template is not kaito's"


def _of_config(workspace: Workspace, options: ServingOptions) -> Iterator[str]:
    for name in options.ignored:
        yield f"inference.config: {name} of ConfigMap '{workspace.inference.config}' is not used by this server"
