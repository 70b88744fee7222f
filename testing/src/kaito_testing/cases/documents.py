"""The record of a row in the table of Workspaces, and makers of its documents. The rows are in `workspaces`."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

__all__ = [
    "IMAGE",
    "UNKNOWN_FIELD",
    "Case",
    "Document",
    "adapter",
    "bad",
    "blends",
    "expression",
    "good",
    "labels",
    "serving",
    "source",
    "strength",
    "template",
    "workspace_document",
]

Document = dict[str, Any]

IMAGE = "registry.example/style:1"
#: Why the CRD accepts a field that there is not.
UNKNOWN_FIELD = "the API server drops unknown fields, and refuses them only where the client asks (kubectl does)"


@dataclass(frozen=True, slots=True)
class Case:
    """One row.

    Attributes:
        rule: The rule that the row shows, in words; rows of one rule are next to each other.
        name: What the row shows of it; unique for the rule.
        new: The document.
        old: The stored document that it replaces, None for a creation.
        refused: The fields at fault, none if it is accepted.
        only_python: Why the CRD accepts what Python refuses, "" if it does not.
    """

    rule: str
    name: str
    new: Document
    old: Document | None = None
    refused: tuple[str, ...] = ()
    only_python: str = ""

    @property
    def id(self) -> str:
        """Name of the row among all."""
        return f"{self.rule}: {self.name}"


def workspace_document(**changes: Any) -> Document:
    """Returns a small valid Workspace with changes: paths with `__` between the names; `...` removes a field."""
    result: Document = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "demo"},
        "inference": {"preset": {"name": "falcon-7b"}, "adapters": [adapter()]},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = result
        for name in parents:
            place = place.setdefault(name, {})
        if value is ...:
            place.pop(last, None)
        else:
            place[last] = copy.deepcopy(value)
    return result


def adapter(name: str = "style", /, **parts: Any) -> Document:
    """Returns an adapter from an image."""
    return {"source": {"name": name, "image": IMAGE}, **parts}


def source(**fields: Any) -> Document:
    """Returns a Workspace whose one adapter has these fields of a source."""
    return workspace_document(inference__adapters=[{"source": {"name": "style", **fields}}])


def strength(value: object) -> Document:
    """Returns a Workspace whose one adapter has this strength."""
    return workspace_document(inference__adapters=[adapter(strength=value)])


def blends(*pairs: tuple[str, Document]) -> Document:
    """Returns a Workspace with blends: pairs of name and strengths."""
    return workspace_document(inference__blends=[{"name": name, "strengths": strengths} for name, strengths in pairs])


def expression(**fields: Any) -> Document:
    """Returns a Workspace whose selector has one expression, on the label `rack`."""
    return workspace_document(resource__labelSelector={"matchExpressions": [{"key": "rack", **fields}]})


def labels(wanted: Document) -> Document:
    """Returns a Workspace whose selector asks for labels."""
    return workspace_document(resource__labelSelector={"matchLabels": wanted})


def template(given: object) -> Document:
    """Returns a Workspace with a pod template of the user's own."""
    return workspace_document(inference={"template": given})


def good(rule: str, **documents: Document) -> tuple[Case, ...]:
    """Returns rows that are accepted; a name has `_` for each blank."""
    return tuple(Case(rule, name.replace("_", " "), document) for name, document in documents.items())


def bad(rule: str, field: str, /, only_python: str = "", **documents: Document) -> tuple[Case, ...]:
    """Returns rows that are refused for one field; names as for `good`."""
    return tuple(
        Case(rule, name.replace("_", " "), document, refused=(field,), only_python=only_python)
        for name, document in documents.items()
    )


def serving(document: Document) -> Document:
    """Returns a Workspace as it is stored when a node serves it."""
    return {**document, "status": {"workerNodes": ["gpu-1"]}}
