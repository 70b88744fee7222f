"""The manifests of a Workspace: workload, Services, disruption budget, and the ConfigMap of the ServingConfig."""

import copy
from collections.abc import Mapping
from typing import Any

from kaito_core.api import KubeObject, ResourceType, ServingConfig, Workload, Workspace
from kaito_core.api.nodes import GPU_RESOURCES
from kaito_core.api.serving import SERVING_KEY
from kaito_core.api.workload import (
    MANAGED_BY_LABEL,
    MANAGER,
    TORCHRUN_PORT,
    WORKSPACE_LABEL,
    headless_name,
    serving_name,
)
from kaito_core.reconcile.objects.placement import pod_affinity
from kaito_core.reconcile.objects.podspec import tolerations
from kaito_core.reconcile.objects.rollout import rollout_strategy
from kaito_core.reconcile.objects.service import service_metadata, service_spec
from kaito_core.settings import Settings

__all__ = [
    "CLAIMS",
    "CONFIG_MAPS",
    "DEPLOYMENTS",
    "DISRUPTION_BUDGETS",
    "PODS",
    "SERVICES",
    "STATEFUL_SETS",
    "preset_manifests",
    "template_manifests",
]

DEPLOYMENTS = ResourceType("apps", "v1", "deployments", "Deployment")
STATEFUL_SETS = ResourceType("apps", "v1", "statefulsets", "StatefulSet")
SERVICES = ResourceType("", "v1", "services", "Service")
CONFIG_MAPS = ResourceType("", "v1", "configmaps", "ConfigMap")
CLAIMS = ResourceType("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
DISRUPTION_BUDGETS = ResourceType("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
PODS = ResourceType("", "v1", "pods", "Pod")

_ROLLOUT_MARGIN_SECONDS = 600  # for pulling the image, which comes before the preset's start-up time


def preset_manifests(
    workspace: Workspace, workload: Workload, template: KubeObject, serving: ServingConfig, settings: Settings
) -> list[KubeObject]:
    """Returns every object of a Workspace with a preset, in the order of creation; `template` is that of its pods."""
    config_map = {
        **_head(workspace, CONFIG_MAPS, serving_name(workspace.name)),
        "data": {SERVING_KEY: serving.to_json()},
    }
    deadline = workload.startup_seconds + _ROLLOUT_MARGIN_SECONDS
    if workload.kind == "Deployment":
        return [
            config_map,
            _service(workspace, {WORKSPACE_LABEL: workspace.name}),
            *_disruption_budget(workspace, workload.replicas),
            _deployment(workspace, workload.replicas, template, settings, deadline),
        ]
    # Rank 0 alone answers HTTP; the headless Service gives the ranks names before they are ready.
    first = {WORKSPACE_LABEL: workspace.name, "statefulset.kubernetes.io/pod-name": f"{workspace.name}-0"}
    return [
        config_map,
        _service(workspace, first),
        _headless_service(workspace),
        _stateful_set(workspace, workload.replicas, template),
    ]


def template_manifests(
    workspace: Workspace, made: Mapping[str, str], settings: Settings, *, pods_first: bool = False
) -> list[KubeObject]:
    """Returns every object of a Workspace with its own pod template.

    Args:
        workspace: The Workspace.
        made: Labels of the nodes that were made for it.
        settings: Operator settings.
        pods_first: Whether nodes come for pods that wait.
    """
    template = copy.deepcopy(workspace.inference.template)
    assert template is not None
    template.setdefault("metadata", {}).setdefault("labels", {})[WORKSPACE_LABEL] = workspace.name
    spec = template.setdefault("spec", {})
    own = spec.get("tolerations", [])
    spec["tolerations"] = [*own, *(added for added in tolerations(*GPU_RESOURCES) if added not in own)]
    machine_type = workspace.resource.instance_type
    own_affinity = spec.get("affinity")
    types = [machine_type] if machine_type else []
    if affinity := pod_affinity(workspace, made, machine_types=types, affinity=own_affinity, labels_apart=pods_first):
        spec["affinity"] = affinity
    if pods_first and (labels := workspace.resource.label_selector.match_labels):
        spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **labels}
    return [
        _service(workspace, {WORKSPACE_LABEL: workspace.name}),
        *_disruption_budget(workspace, workspace.count),
        _deployment(workspace, workspace.count, template, settings, 1800 + _ROLLOUT_MARGIN_SECONDS),
    ]


def _head(workspace: Workspace, resource: ResourceType, name: str) -> KubeObject:
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": workspace.namespace,
        "labels": {WORKSPACE_LABEL: workspace.name, MANAGED_BY_LABEL: MANAGER},
    }
    if workspace.metadata.uid:  # absent only for a Workspace that is not on a cluster, as in `kaito render`
        metadata["ownerReferences"] = [
            {
                "apiVersion": workspace.api_version,
                "kind": workspace.kind,
                "name": workspace.name,
                "uid": workspace.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    return {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}


def _service(workspace: Workspace, selector: dict[str, str]) -> KubeObject:
    head = _head(workspace, SERVICES, workspace.name)
    metadata = {**head["metadata"], **service_metadata(workspace)}
    return {**head, "metadata": metadata, "spec": service_spec(workspace, selector)}


def _headless_service(workspace: Workspace) -> KubeObject:
    return {
        **_head(workspace, SERVICES, headless_name(workspace.name)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {WORKSPACE_LABEL: workspace.name},
            "ports": [{"name": "torch", "port": TORCHRUN_PORT, "targetPort": TORCHRUN_PORT, "protocol": "TCP"}],
        },
    }


def _disruption_budget(workspace: Workspace, replicas: int) -> list[KubeObject]:
    """Returns the budget that keeps replicas serving while nodes are drained; a single one could never be moved."""
    if replicas < 2:
        return []
    return [
        {
            **_head(workspace, DISRUPTION_BUDGETS, workspace.name),
            "spec": {
                "maxUnavailable": 1,
                "selector": {"matchLabels": {WORKSPACE_LABEL: workspace.name}},
                # Pods that are not ready must not block a drain.
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
            },
        }
    ]


def _deployment(
    workspace: Workspace, replicas: int, template: KubeObject, settings: Settings, deadline_seconds: int
) -> KubeObject:
    return {
        **_head(workspace, DEPLOYMENTS, workspace.name),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {WORKSPACE_LABEL: workspace.name}},
            "strategy": rollout_strategy(workspace, settings),
            "progressDeadlineSeconds": deadline_seconds,
            "template": template,
        },
    }


def _stateful_set(workspace: Workspace, replicas: int, template: KubeObject) -> KubeObject:
    return {
        **_head(workspace, STATEFUL_SETS, workspace.name),
        "spec": {
            "replicas": replicas,
            "serviceName": headless_name(workspace.name),
            "podManagementPolicy": "Parallel",  # the ranks wait for one another
            # A rolling update would join old and new ranks to one model; `difference` replaces all pods at once.
            "updateStrategy": {"type": "OnDelete"},
            "selector": {"matchLabels": {WORKSPACE_LABEL: workspace.name}},
            "template": template,
        },
    }
