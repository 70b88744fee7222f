"""How the pods of a Deployment are replaced: as annotations of the Workspace or settings of the operator say."""

import re
from collections.abc import Mapping

from kaito_core.api import KubeObject, Workspace
from kaito_core.errors import FieldError
from kaito_core.settings import Settings

__all__ = ["MAX_SURGE_ANNOTATION", "STRATEGY_ANNOTATION", "check_rollout", "rollout_strategy"]

STRATEGY_ANNOTATION = "kaito.sh/strategy"
MAX_SURGE_ANNOTATION = "kaito.sh/max-surge"
_STRATEGIES = ("RollingUpdate", "Recreate")
_SURGE = re.compile(r"[0-9]{1,4}|[0-9]{1,3}%", re.ASCII)


def check_rollout(annotations: Mapping[str, str], *, distributed: bool) -> list[FieldError]:
    """Returns the faults of the annotations that choose a strategy.

    Args:
        annotations: The Workspace's.
        distributed: Whether the pods share one model.
    """
    strategy, surge = annotations.get(STRATEGY_ANNOTATION), annotations.get(MAX_SURGE_ANNOTATION)
    errors: list[FieldError] = []

    def refuse(annotation: str, fault: str) -> None:
        errors.append(FieldError(f"metadata.annotations[{annotation}]", fault))

    if strategy is not None and strategy not in _STRATEGIES:
        refuse(STRATEGY_ANNOTATION, f"must be {' or '.join(_STRATEGIES)}, got '{strategy}'")
    if surge is not None and (_SURGE.fullmatch(surge) is None or (surge.endswith("%") and int(surge[:-1]) > 100)):
        refuse(MAX_SURGE_ANNOTATION, f"must be a number of pods or a percentage up to 100%, got '{surge}'")
    elif surge is not None and strategy == "Recreate":
        refuse(
            MAX_SURGE_ANNOTATION,
            f"must be left out where {STRATEGY_ANNOTATION} is Recreate: all pods are replaced at once",
        )
    elif surge is not None and distributed:
        refuse(MAX_SURGE_ANNOTATION, "must be left out for a distributed preset, whose pods are replaced together")
    if distributed and strategy == "RollingUpdate":
        refuse(STRATEGY_ANNOTATION, "must be Recreate or left out for a distributed preset: its pods share one model")
    return errors


def rollout_strategy(workspace: Workspace, settings: Settings) -> KubeObject:
    """Returns the strategy of a Deployment, from annotations in which `check_rollout` has found no fault."""
    annotations = workspace.metadata.annotations
    if annotations.get(STRATEGY_ANNOTATION) == "Recreate":
        return {"type": "Recreate"}
    text = annotations.get(MAX_SURGE_ANNOTATION, str(settings.max_surge))
    # Without room for another pod, a serving one has to go first; Kubernetes refuses both at 0.
    unavailable = 0 if int(text.rstrip("%")) else 1
    return {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": text if text.endswith("%") else int(text), "maxUnavailable": unavailable},
    }
