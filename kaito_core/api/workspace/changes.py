"""What an edit of a Workspace may do: some fields keep their value, and a fault that was there before is forgiven.

A rule that an upgrade brings would otherwise lock users out of Workspaces that it finds wrong: neither they nor the
operator could change anything in them any more. The API server ratchets the CRD's own rules in the same way.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kaito_core.api.messages import shown
from kaito_core.api.workspace.model import parse_workspace
from kaito_core.errors import FieldError, InvalidWorkspaceError

__all__ = ["change_faults", "document_faults", "forgiven"]

_KEEPS = "must not change while nodes serve: create another Workspace, and delete this one when that one serves"
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


def change_faults(
    old: object, new: object, check: Callable[[object], list[FieldError]] = document_faults
) -> list[FieldError]:
    """Returns what is wrong with an edit: faults that it brings, and fields that must keep their value.

    Args:
        old: The Workspace document as it is stored.
        new: As it would be.
        check: Finds the faults of one document.
    """
    faults = check(new)
    errors = forgiven(faults, check(old) if faults else [], old, new)
    for path in _FIXED:
        before, after = _at(old, path), _at(new, path)
        if before and before != after and _at(old, ("status", "workerNodes")):
            # The selector is one choice, however it is written.
            field = ".".join(path[:2])
            errors.append(FieldError(field, f"{_KEEPS}, it is {shown(before)}, got {shown(after)}"))
    kinds = [_kind(_at(document, ("inference",))) for document in (old, new)]
    if all(kinds) and kinds[0] != kinds[1]:
        message = f"must not change between preset and template: create another Workspace, it has a {kinds[0]}"
        errors.append(FieldError("inference", f"{message}, got a {kinds[1]}"))
    return errors


def forgiven(faults: Iterable[FieldError], known: Sequence[FieldError], old: object, new: object) -> list[FieldError]:
    """Returns the faults of a new document that are not forgiven.

    A fault is forgiven where nothing in its part of the document (`inference`, `resource`) has changed, or where its
    own field is as it was and the old document has the same fault. Lists count as a whole: what has moved is not
    followed.

    Args:
        faults: Of the new document.
        known: Of the old document.
        old: The old document.
        new: The new one.
    """
    if not known:
        return list(faults)  # it was right, and one part may be wrong for what another has become
    return [
        fault
        for fault in faults
        if not (
            _same(old, new, fault.field, deep=False) or (fault in known and _same(old, new, fault.field, deep=True))
        )
    ]


def _same(old: object, new: object, field: str, *, deep: bool) -> bool:
    """Returns whether a field, up to the first list in its path, or the part that it lies in has the same value."""
    names = field.partition("[")[0].split(".")
    path = names if deep else names[:1]
    before, after = _at(old, path), _at(new, path)
    return bool(path[0]) and (before is after or before == after)  # YAML's .nan does not equal itself


def _at(document: object, path: Iterable[str]) -> Any:
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def _kind(inference: object) -> str:
    """Returns "preset" or "template", "" where it is neither or both."""
    given = [name for name in ("preset", "template") if _at(inference, (name,)) is not None]
    return given[0] if len(given) == 1 else ""
