"""API errors and their Status bodies: one function for each kind of error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kaito_testing.kube.resources import Resource

__all__ = ["ApiError", "Cause"]


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why an object is refused.

    Attributes:
        field: Path of the field.
        message: For people.
        reason: The API's word, such as "FieldValueInvalid".
    """

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def to_dict(self) -> dict[str, str]:
        """The cause as an entry of `details.causes`."""
        return {"field": self.field, "message": self.message, "reason": self.reason}


class ApiError(Exception):
    """The answer of an API that refuses a request, or fails.

    Attributes:
        code: HTTP status.
        reason: The API's word, such as "NotFound".
        message: For people.
        details: The `details` of the Status, None if the API sends none.
    """

    def __init__(self, code: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code, self.reason, self.message, self.details = code, reason, message, details

    def to_status(self) -> dict[str, Any]:
        """The error as a Status."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details is not None:
            body["details"] = self.details
        return body


def details(resource: Resource, name: str, **more: Any) -> dict[str, Any]:
    """The `details` of an object, e.g. {"group": "apps", "kind": "deployments", "name": "d"}."""
    return {"name": name, **({"group": resource.group} if resource.group else {}), "kind": resource.plural, **more}


def not_found(resource: Resource, name: str) -> ApiError:
    """The object does not exist."""
    return ApiError(404, "NotFound", f'{resource.qualified} "{name}" not found', details(resource, name))


def already_exists(resource: Resource, name: str) -> ApiError:
    """Another object has the name."""
    return ApiError(409, "AlreadyExists", f'{resource.qualified} "{name}" already exists', details(resource, name))


def conflict(
    resource: Resource,
    name: str,
    why: str = "the object has been modified; please apply your changes to the latest version and try again",
) -> ApiError:
    """The write was based on another version of the object."""
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, details(resource, name))


def precondition(resource: Resource, name: str, what: str, wanted: str, found: str) -> ApiError:
    """A delete names another uid or resourceVersion than the object has."""
    message = (
        f'Operation cannot be fulfilled on {resource.kind} "{name}": the {what} in the precondition ({wanted})'
        f" does not match the {what} in record ({found}). The object might have been deleted and then recreated"
    )
    return ApiError(409, "Conflict", message, {"name": name, "kind": resource.kind})


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> ApiError:
    """The object breaks rules; each cause names a field."""
    lines = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    text = lines[0] if len(lines) == 1 else "[" + ", ".join(lines) + "]"
    full_kind = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    body = {"name": name, "kind": resource.kind, "causes": [cause.to_dict() for cause in causes]}
    if resource.group:
        body["group"] = resource.group
    return ApiError(422, "Invalid", f'{full_kind} "{name}" is invalid: {text}', body)


def apply_conflicts(conflicts: Sequence[tuple[str, str]]) -> ApiError:
    """Other field managers own fields that an apply would change: pairs of (manager, field)."""
    lines = [f'conflict with "{manager}": {field}' for manager, field in conflicts]
    number = f"{len(lines)} conflict{'s' if len(lines) > 1 else ''}"
    causes = [Cause(field, f'conflict with "{manager}"', "FieldManagerConflict") for manager, field in conflicts]
    message = f"Apply failed with {number}: " + ", ".join(lines)
    return ApiError(409, "Conflict", message, {"causes": [cause.to_dict() for cause in causes]})


def manager_required() -> ApiError:
    """An apply names no field manager."""
    cause = Cause("fieldManager", "Required value: is required for apply patch", "FieldValueRequired")
    message = f'PatchOptions.meta.k8s.io "" is invalid: {cause.field}: {cause.message}'
    body = {"group": "meta.k8s.io", "kind": "PatchOptions", "causes": [cause.to_dict()]}
    return ApiError(422, "Invalid", message, body)


def unprocessable() -> ApiError:
    """A JSON patch cannot be applied."""
    return ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {})


def bad_request(message: str) -> ApiError:
    """The request is malformed."""
    return ApiError(400, "BadRequest", message)


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    """The request is not allowed."""
    message = f'{resource.qualified} "{name}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, details(resource, name))


def method_not_allowed() -> ApiError:
    """The resource has no such verb."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, {})


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    """The resource does not accept this kind of body."""
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return ApiError(415, "UnsupportedMediaType", message)


def continue_expired() -> ApiError:
    """The list whose next page is requested is older than the history."""
    message = (
        "The provided continue parameter is too old to display a consistent list result."
        " You can start a new list without the continue parameter."
    )
    return ApiError(410, "Expired", message)


def expired(asked: int, oldest: int) -> ApiError:
    """The revision that a watch starts from is older than the history."""
    return ApiError(410, "Expired", f"too old resource version: {asked} ({oldest})")
