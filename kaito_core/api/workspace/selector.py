"""The label selector of a Workspace, as a document. Which labels one matches is decided in `api.labels`."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kaito_core.api.messages import fault
from kaito_core.api.workspace.document import Document
from kaito_core.api.workspace.formats import LABEL_KEY, LABEL_VALUE

__all__ = ["MAX_LABELS", "MAX_VALUES", "NODE_LABELS", "RESERVED_ALONE", "Expression", "LabelSelector"]

MAX_LABELS = 32  # of each kind in one selector; the cost of the CRD's rules grows with it
MAX_VALUES = 100

#: Labels that Kubernetes, node provisioners and this operator give to nodes themselves: they choose no nodes of one's
#: own.
NODE_LABELS = (
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "kaito.sh/machine-type",
    "kaito.sh/workspace",
    "kaito.sh/workspacenamespace",
    "karpenter.sh/nodepool",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
)
RESERVED_ALONE = (
    "must have a label of your own besides those that every node has (kubernetes.io/os, kubernetes.io/hostname and the "
    "like), such as apps: NAME; a machine type is named in resource.instanceType, a node in resource.preferredNodes"
)

Key = Annotated[str, LABEL_KEY]
Value = Annotated[str, LABEL_VALUE]


class Expression(Document):
    """One requirement of a label selector.

    Attributes:
        key: The label that the requirement is about.
        operator: In and NotIn compare the label's value with `values`; Exists and DoesNotExist ask for the label alone.
        values: Values for In and NotIn; empty for Exists and DoesNotExist.
    """

    key: Key
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[Value, ...] = Field(default=(), max_length=MAX_VALUES)

    @model_validator(mode="after")
    def _values_fit(self) -> Self:
        if self.operator in ("In", "NotIn") and not self.values:
            raise fault(f"must have values for the operator {self.operator}")
        if self.operator in ("Exists", "DoesNotExist") and self.values:
            raise fault(f"must have no values for the operator {self.operator}")
        return self


class LabelSelector(Document):
    """A Kubernetes label selector; all of its requirements must hold.

    Attributes:
        match_labels: Labels with the value that each must have.
        match_expressions: Further requirements.
    """

    match_labels: dict[Key, Value] = Field(default_factory=dict, max_length=MAX_LABELS)
    match_expressions: tuple[Expression, ...] = Field(default=(), max_length=MAX_LABELS)

    @model_validator(mode="after")
    def _chooses_nodes(self) -> Self:
        keys = [*self.match_labels, *(expression.key for expression in self.match_expressions)]
        if self.match_labels and all(key in NODE_LABELS for key in keys):
            raise fault(f"{RESERVED_ALONE}; got {', '.join(self.match_labels)}")
        return self
