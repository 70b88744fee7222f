"""Checks of a Workspace that need no cluster. Pure functions."""

from collections.abc import Mapping

from kaito_core.api import ModelPreset, Workspace
from kaito_core.api.nodes import NodeRequest
from kaito_core.api.workspace.model import PROVIDER_ANNOTATION
from kaito_core.errors import FieldError, InvalidWorkspaceError, known_names
from kaito_karpenter.choices import ARCHITECTURE, annotated, option_variable
from kaito_karpenter.cloud import KarpenterCloud

__all__ = ["check_request", "workspace_faults"]

_TYPE = "resource.instanceType"


def workspace_faults(workspace: Workspace, preset: ModelPreset | None, cloud: KarpenterCloud) -> list[FieldError]:
    """Returns the faults of a Workspace, for the hook `kaito_validate_workspace`.

    Workspaces of other providers have none. What depends on the options of the plugin is checked by `check_request`.
    """
    instance_type = workspace.resource.instance_type
    annotations = workspace.metadata.annotations
    asked = annotations.get(PROVIDER_ANNOTATION, "")
    if asked != cloud.name if asked else not cloud.makes(instance_type):
        return []
    faults: list[FieldError] = []
    try:
        annotated(annotations)
    except InvalidWorkspaceError as error:
        faults += error.errors
    if preset is not None and preset.gpus and cloud.lacks_gpus(instance_type):
        faults.append(_no_gpus(instance_type, cloud))
    return faults


def check_request(request: NodeRequest, cloud: KarpenterCloud) -> Mapping[str, tuple[str, ...]]:
    """Returns what the Workspace's annotations choose.

    Raises:
        InvalidWorkspaceError: A choice is not possible, or the machine type cannot be used.
    """
    asked = annotated(request.annotations)
    instance_type, built = request.instance_type, {**cloud.choices, **asked}[ARCHITECTURE]
    if not instance_type:
        fault = FieldError(_TYPE, f"is required, since nodes are created; {_known('', cloud)}")
    elif not cloud.makes(instance_type):
        fault = FieldError(
            _TYPE, f"must be a machine type of {cloud.title}, got '{instance_type}'; {_known(instance_type, cloud)}"
        )
    elif request.gpus and cloud.lacks_gpus(instance_type):
        fault = _no_gpus(instance_type, cloud)
    elif (has := cloud.architecture(instance_type)) not in built:
        fault = FieldError(
            _TYPE,
            f"must be a machine type with {' or '.join(built)} processors, which the images are built for, got "
            f"'{instance_type}' with {has} processors; if the images are built for both, set the annotation "
            "kaito.sh/architectures: amd64,arm64 or, for all Workspaces, "
            f"{option_variable(cloud.name, 'architectures')}",
        )
    else:
        return asked
    raise InvalidWorkspaceError([fault])


def _no_gpus(instance_type: str, cloud: KarpenterCloud) -> FieldError:
    fault = f"must be a machine type with GPUs, got '{instance_type}', which has none; {_known('', cloud)}"
    return FieldError(_TYPE, fault)


def _known(instance_type: str, cloud: KarpenterCloud) -> str:
    return known_names((sku.name for sku in cloud.skus), instance_type)
