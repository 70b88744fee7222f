"""The rules of an edit: which fields keep their value, and which faults are forgiven since they were there before.

Without forgiveness a rule that an upgrade brings would lock users out of Workspaces that it finds wrong: neither they
nor the operator could change anything in them. The API server ratchets the CRD's own rules in the same way.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kaito_core.api.messages import shown
from kaito_core.api.workspace.parse import parse_workspace
from kaito_core.api.workspace.rules import KIND_CHANGES, NODES_CHANGE
from kaito_core.errors import FieldError, InvalidWorkspaceError

__all__ = ["change_faults", "document_change_faults", "document_faults", "forgiven"]

_FIXED = (
    ("resource", "instanceType"),
    ("resource", "labelSelector", "matchLabels"),
    ("resource", "labelSelector", "matchExpressions"),
)


def document_faults(document: object) -> list[FieldError]:
    """Returns the faults of a document by itself."""
    try:
        parse_workspace(document)
    except InvalidWorkspaceError as error:
        return list(error.errors)
    return []


def document_change_faults(old: object, new: object) -> list[FieldError]:
    """Returns the faults of an edit that the two documents show by themselves."""
    return change_faults(old, new, document_faults(new), document_faults)


def change_faults(
    old: object, new: object, faults: Sequence[FieldError], check: Callable[[object], Sequence[FieldError]]
) -> list[FieldError]:
    """Returns what is wrong with an edit: faults that it brings, and fields that must keep their value.

    Args:
        old: The Workspace document that is stored.
        new: The document that replaces it.
        faults: Those of the new document.
        check: Finds the faults of the old one; called where the new one has any.
    """
    errors = forgiven(faults, check(old) if faults else (), old, new)
    for path in _FIXED:
        before, after = _at(old, path), _at(new, path)
        if before and before != after and _at(old, ("status", "workerNodes")):
            # The selector is one choice, however it is written.
            field = ".".join(path[:2])
            errors.append(FieldError(field, f"{NODES_CHANGE}; it is {shown(before)}, got {shown(after)}"))
    before, after = (_kind(_at(document, ("inference",))) for document in (old, new))
    if before and after and before != after:
        errors.append(FieldError("inference", f"{KIND_CHANGES}; it has a {before}, got a {after}"))
    return errors


def forgiven(faults: Iterable[FieldError], known: Sequence[FieldError], old: object, new: object) -> list[FieldError]:
    """Returns the faults of a new document that remain when the forgivable ones are taken out.

    A fault is forgiven where nothing in its part of the document (`inference`, `resource`) has changed, or where its
    own field is unchanged and the old document has the same fault. Lists count as a whole: entries that have moved are
    not followed.

    Args:
        faults: Of the new document.
        known: Of the old document.
        old: The old document.
        new: The new one.
    """
    if not known:
        return list(faults)  # the old one was right, and a part may be wrong because another part has changed
    return [
        fault
        for fault in faults
        if not _same(old, new, _path(fault.field)[:1]) and not (fault in known and _same(old, new, _path(fault.field)))
    ]


def _path(field: str) -> list[str]:
    """Returns the names in a field's path, up to the first list."""
    return field.partition("[")[0].split(".")


def _same(old: object, new: object, path: Sequence[str]) -> bool:
    before, after = _at(old, path), _at(new, path)
    return bool(path[0]) and (before is after or before == after)  # YAML's .nan does not equal itself


def _at(document: object, path: Iterable[str]) -> Any:
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def _kind(inference: object) -> str:
    """Returns "preset" or "template", "" for neither or both."""
    given = [name for name in ("preset", "template") if _at(inference, (name,)) is not None]
    return given[0] if len(given) == 1 else ""
