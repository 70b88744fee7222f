"""The vocabulary: pydantic records for documents, dataclasses for what passes between plugins, and Protocols."""

from kaito_core.api.adapter import AdapterRef, AdapterSource, FetchStep, fetch_step
from kaito_core.api.cluster import NODES, Cluster, KubeObject, ResourceType
from kaito_core.api.labels import matches
from kaito_core.api.nodes import Closes, GpuSku, MakesTypes, NodeProvider, NodeRequest, NodeState, RejectedNode, Starts
from kaito_core.api.preset.model import ModelPreset, Weights
from kaito_core.api.serving import ServedAdapter, ServedBlend, ServedLimits, ServedModel, ServingConfig
from kaito_core.api.strength import parse_strength
from kaito_core.api.workload import Workload
from kaito_core.api.workspace.model import Workspace
from kaito_core.api.workspace.parse import parse_workspace
from kaito_core.api.workspace.pod import PodChange

__all__ = [
    "NODES",
    "AdapterRef",
    "AdapterSource",
    "Closes",
    "Cluster",
    "FetchStep",
    "GpuSku",
    "KubeObject",
    "MakesTypes",
    "ModelPreset",
    "NodeProvider",
    "NodeRequest",
    "NodeState",
    "PodChange",
    "RejectedNode",
    "ResourceType",
    "ServedAdapter",
    "ServedBlend",
    "ServedLimits",
    "ServedModel",
    "ServingConfig",
    "Starts",
    "Weights",
    "Workload",
    "Workspace",
    "fetch_step",
    "matches",
    "parse_strength",
    "parse_workspace",
]
