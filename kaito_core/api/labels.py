"""Which labels a label selector matches, and its requirements as text.

The selector of a Workspace, as a document, is in `workspace.selector`.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["matches", "requirement_text"]


def matches(selector: Mapping[str, Any] | None, labels: Mapping[str, Any]) -> bool:
    """Returns whether labels satisfy every requirement of a label selector.

    `NotIn` and `DoesNotExist` hold for an object without the label.

    Args:
        selector: `matchLabels` and `matchExpressions` as Kubernetes writes them; {} matches everything, None nothing.
        labels: The labels of one object.

    Raises:
        ValueError: An operator is unknown.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/label-selector/
    """
    if selector is None:
        return False
    expected = selector.get("matchLabels") or {}
    return all(key in labels and labels[key] == value for key, value in expected.items()) and all(
        _holds(expression, labels) for expression in selector.get("matchExpressions") or ()
    )


def requirement_text(expression: Mapping[str, Any]) -> str:
    """Returns an expression of a label selector as text, such as "zone In (a, b)"."""
    values = ", ".join(expression.get("values") or ())
    return f"{expression.get('key')} {expression.get('operator')}" + (f" ({values})" if values else "")


def _holds(expression: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    key, operator, values = expression["key"], expression["operator"], expression.get("values") or ()
    if operator == "In":
        return key in labels and labels[key] in values
    if operator == "NotIn":
        return key not in labels or labels[key] not in values
    if operator == "Exists":
        return key in labels
    if operator == "DoesNotExist":
        return key not in labels
    raise ValueError(f"operator must be In, NotIn, Exists or DoesNotExist, got '{operator}'")
