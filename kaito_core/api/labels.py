"""Which labels a label selector matches. The selector of a Workspace, as a document, is in `workspace.selector`."""

from collections.abc import Mapping
from typing import Any

__all__ = ["matches"]


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
