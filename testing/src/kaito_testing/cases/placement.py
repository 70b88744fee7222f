"""Rows of the table of Workspaces about the number of replicas, and about labels that choose nodes."""

from __future__ import annotations

from kaito_core.api.workspace.model import MAX_COUNT
from kaito_testing.cases.documents import UNKNOWN_FIELD, Case, bad, good, labels, workspace_document

__all__ = ["PLACEMENT"]

_SELECTOR = "resource.labelSelector"
_REPLICAS = "spec.replicas is a whole number from 0 to 1000"
_UNDER_SPEC = "resource and inference are not under spec"
_PRESET = {"preset": {"name": "m"}}
_RESERVED = "a label selector has a label of one's own"

PLACEMENT: tuple[Case, ...] = (
    *bad(
        "count is a whole number from 0 to 1000",
        "resource.count",
        negative=workspace_document(resource__count=-1),
        too_large=workspace_document(resource__count=MAX_COUNT + 1),
        text=workspace_document(resource__count="2"),
        boolean=workspace_document(resource__count=True),
        fraction=workspace_document(resource__count=1.5),
    ),
    *good("count is a whole number from 0 to 1000", no_replica=workspace_document(resource__count=0)),
    *good(
        _REPLICAS,
        none=workspace_document(spec={"replicas": 0}),
        both=workspace_document(spec={"replicas": 3}, resource={"count": 1}),
        blank=workspace_document(spec={}),
    ),
    *bad(
        _REPLICAS,
        "spec.replicas",
        negative=workspace_document(spec={"replicas": -1}),
        too_large=workspace_document(spec={"replicas": MAX_COUNT + 1}),
        text=workspace_document(spec={"replicas": "2"}),
        fraction=workspace_document(spec={"replicas": 1.5}),
    ),
    *bad(
        _UNDER_SPEC,
        "spec",
        both=workspace_document(inference=..., spec={"resource": {"count": 1}, "inference": _PRESET}),
        inference=workspace_document(inference=..., spec={"inference": _PRESET}),
        besides_replicas=workspace_document(inference=..., spec={"replicas": 1, "inference": _PRESET}),
    ),
    *bad(
        _UNDER_SPEC,
        "spec",
        UNKNOWN_FIELD,
        resource=workspace_document(spec={"resource": {"count": 1}}),
        twice=workspace_document(spec={"inference": _PRESET}),
        unknown=workspace_document(spec={"replica": 1}),
    ),
    *bad(
        _RESERVED,
        _SELECTOR,
        system=labels({"kubernetes.io/os": "linux"}),
        node=labels({"kubernetes.io/hostname": "gpu-1"}),
        several=labels({"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}),
        machine_type=labels({"node.kubernetes.io/instance-type": "Standard_NC24ads_A100_v4"}),
        another_workspace=labels({"kaito.sh/workspace": "other"}),
        with_an_expression=workspace_document(
            resource__labelSelector={
                "matchLabels": {"kubernetes.io/os": "linux"},
                "matchExpressions": [{"key": "kubernetes.io/arch", "operator": "Exists"}],
            }
        ),
    ),
    *good(
        _RESERVED,
        beside_ones_own=labels({"kubernetes.io/os": "linux", "apps": "chat"}),
        zone=labels({"topology.kubernetes.io/zone": "west-1"}),
        empty=labels({}),
        with_an_expression_of_ones_own=workspace_document(
            resource__labelSelector={
                "matchLabels": {"kubernetes.io/os": "linux"},
                "matchExpressions": [{"key": "pool", "operator": "Exists"}],
            }
        ),
    ),
)
