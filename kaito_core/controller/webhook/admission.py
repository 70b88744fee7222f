"""The decision of the admission webhook: a function from AdmissionReview to AdmissionReview. HTTPS is in `server`.

It refuses what the reconciler would refuse later. It never refuses a deletion, nor an edit for a fault that the
Workspace had before; where it fails itself, it allows the request with a warning.

Source: https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

import logging
from collections.abc import Mapping
from typing import Any

from kaito_core.api import KubeObject, parse_workspace
from kaito_core.api.workspace.changes import change_faults
from kaito_core.errors import FieldError, KaitoError, WorkspaceError
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.resolve import Resolved, resolve

__all__ = ["MalformedReviewError", "review_response"]

log = logging.getLogger(__name__)

_VERSION, _KIND = "admission.k8s.io/v1", "AdmissionReview"


class MalformedReviewError(KaitoError):
    """The request is not an AdmissionReview that could be answered."""


def review_response(review: object, registry: PluginRegistry) -> KubeObject:
    """Returns the AdmissionReview that answers another.

    Raises:
        MalformedReviewError: It does not have the form of an AdmissionReview, so there is no uid to answer to.
    """
    if not isinstance(review, Mapping) or (review.get("apiVersion"), review.get("kind")) != (_VERSION, _KIND):
        raise MalformedReviewError(f"the body must be an {_KIND} of {_VERSION}")
    request = review.get("request")
    if not isinstance(request, Mapping) or not isinstance(request.get("uid"), str) or not request["uid"]:
        raise MalformedReviewError("request.uid must be a string that is not empty")
    try:
        response = _verdict(request, registry)
    except Exception as error:
        log.exception("a Workspace could not be checked on admission")
        response = {
            "allowed": True,
            "warnings": [f"kaito could not check this: {type(error).__name__}; the operator's log has more"],
        }
    return {"apiVersion": _VERSION, "kind": _KIND, "response": {"uid": request["uid"], **response}}


def _verdict(request: Mapping[str, Any], registry: PluginRegistry) -> dict[str, Any]:
    new, old = request.get("object"), request.get("oldObject")
    if request.get("operation") not in ("CREATE", "UPDATE") or _is_being_deleted(new):
        return {"allowed": True}

    resolved, errors = _check(new, registry)
    if request["operation"] == "UPDATE" and old is not None:
        errors = change_faults(old, new, errors, lambda document: _check(document, registry)[1])
    if errors:
        return {"allowed": False, "status": _refusal(new, errors)}
    warnings = [*map(str, resolved.notices), *resolved.unused] if resolved is not None else []
    return {"allowed": True, **({"warnings": warnings} if warnings else {})}


def _check(document: object, registry: PluginRegistry) -> tuple[Resolved | None, list[FieldError]]:
    """Returns what the plugins know about a Workspace, None where it is wrong, and its faults."""
    try:
        return resolve(parse_workspace(document), registry), []
    except WorkspaceError as error:
        return None, list(error.errors)


def _is_being_deleted(document: object) -> bool:
    """Returns whether an object is being deleted; removing a finalizer is an update too."""
    metadata = document.get("metadata") if isinstance(document, Mapping) else None
    return isinstance(metadata, Mapping) and metadata.get("deletionTimestamp") is not None


def _refusal(document: object, errors: list[FieldError]) -> KubeObject:
    metadata = document.get("metadata") if isinstance(document, Mapping) else None
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    causes = [{"reason": "FieldValueInvalid", "message": error.message, "field": error.field} for error in errors]
    return {
        "code": 422,
        "reason": "Invalid",
        "message": "; ".join(str(error) for error in errors),
        "details": {"name": name, "kind": "Workspace", "causes": causes},
    }
