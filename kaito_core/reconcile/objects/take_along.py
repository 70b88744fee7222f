"""What pods take along for their cluster: `inference.pod`, the operator's defaults and plugins' changes, put into pods.

Options are here as Kubernetes writes them, merged and checked (`api.workspace.pod`). What the operator sets itself
always counts.
"""

from collections.abc import Mapping
from typing import Any

from kaito_core.api import KubeObject
from kaito_core.api.quantity import parse_quantity
from kaito_core.api.workload import WORKSPACE_LABEL
from kaito_core.api.workspace.pod_parts import CA_PATH

__all__ = ["equip_container", "equip_template"]

Options = Mapping[str, Any]

_CA_VOLUME = "ca-bundle"
#: Where OpenSSL, httpx, requests, the hub's client and curl look for authorities.
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
#: Limits that every container of a pod must have where a quota is on them.
_QUOTA_RESOURCES = ("cpu", "memory", "ephemeral-storage")
#: Fields of a pod that options set as they are.
_POD_FIELDS = (
    "runtimeClassName",
    "priorityClassName",
    "schedulerName",
    "serviceAccountName",
    "hostAliases",
    "dnsConfig",
    "dnsPolicy",
)
_USER_FIELDS = ("runAsUser", "runAsGroup")


def equip_container(container: KubeObject, options: Options, *, trusted: bool, late: bool = False) -> KubeObject:
    """Returns a container with what it takes along.

    Args:
        container: A container of the operator's making.
        options: What pods take along.
        trusted: Whether it runs the runtime's image. Others run images of adapters, and get no Secrets and no volumes.
        late: Whether it is added to a running pod, where mounts have no subPath.
    """
    env = [entry for entry in options.get("env", ()) if trusted or "valueFrom" not in entry]
    mounts = [m for m in options.get("volumeMounts", ()) if trusted and not (late and "subPath" in m)]
    if bundle := options.get("caBundle"):
        path = f"{CA_PATH}/{bundle.get('key', 'ca.crt')}"
        named = {entry["name"] for entry in env}
        env += [{"name": name, "value": path} for name in _CA_VARIABLES if name not in named]
        mounts.append({"name": _CA_VOLUME, "mountPath": CA_PATH, "readOnly": True})
    own = container.get("env", [])
    taken = {entry["name"] for entry in own}
    equipped = dict(container)
    if env := [*(dict(entry) for entry in env if entry["name"] not in taken), *own]:
        equipped["env"] = env
    if trusted and options.get("envFrom"):
        equipped["envFrom"] = [dict(entry) for entry in options["envFrom"]]
    if mounts:
        equipped["volumeMounts"] = [*container.get("volumeMounts", []), *map(dict, mounts)]
    user = {key: value for key, value in options.get("securityContext", {}).items() if key in _USER_FIELDS}
    equipped["securityContext"] = {**container["securityContext"], **user}
    return equipped


def equip_template(workspace: str, template: KubeObject, options: Options) -> KubeObject:
    """Returns a pod template with what its pods take along; its containers are equipped already.

    Args:
        workspace: Name of the Workspace.
        template: A pod template of the operator's making.
        options: What pods take along.
    """
    metadata, spec = dict(template["metadata"]), dict(template["spec"])
    metadata["labels"] = {**options.get("labels", {}), **metadata.get("labels", {})}
    if options.get("annotations"):
        metadata["annotations"] = {**options["annotations"], **metadata.get("annotations", {})}
    spec |= {key: options[key] for key in _POD_FIELDS if key in options}
    volumes = [dict(volume) for volume in options.get("volumes", ())]
    if bundle := options.get("caBundle"):
        volumes.append({"name": _CA_VOLUME, "configMap": {"name": bundle["configMap"]}})
    spec["volumes"] = [*spec["volumes"], *volumes]
    for field, added in (
        ("tolerations", options.get("tolerations", ())),
        ("imagePullSecrets", [{"name": name} for name in options.get("imagePullSecrets", ())]),
    ):
        if extra := [dict(entry) for entry in added if entry not in spec.get(field, ())]:
            spec[field] = [*spec.get(field, ()), *extra]
    if spread := options.get("topologySpreadConstraints"):
        spec["topologySpreadConstraints"] = [_constraint(workspace, given) for given in spread]
    if pod := {key: value for key, value in options.get("securityContext", {}).items() if key not in _USER_FIELDS}:
        spec["securityContext"] = {**spec.get("securityContext", {}), **pod}
    _set_resources(spec, options.get("resources", {}))
    return {**template, "metadata": metadata, "spec": spec}


def _constraint(workspace: str, given: Mapping[str, Any]) -> KubeObject:
    """Returns a spread constraint with what the API requires and the user left out."""
    selector = {"matchLabels": {WORKSPACE_LABEL: workspace}}
    return {"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector, **given}


def _set_resources(spec: KubeObject, asked: Mapping[str, Mapping[str, str]]) -> None:
    """Sets the resources of the server, and of the containers before it the same limits, which costs no quota."""
    if not asked:
        return
    server, *others = spec["containers"]
    spec["containers"] = [{**server, "resources": _with(server["resources"], asked)}, *others]
    limits = {name: amount for name, amount in asked.get("limits", {}).items() if name in _QUOTA_RESOURCES}
    if limits:
        spec["initContainers"] = [
            {**step, "resources": _limited(step["resources"], limits)} for step in spec["initContainers"]
        ]


def _with(resources: KubeObject, asked: Mapping[str, Mapping[str, str]]) -> KubeObject:
    """Returns resources with other amounts; GPUs are never asked for."""
    kinds = {kind: {**resources.get(kind, {}), **asked.get(kind, {})} for kind in ("requests", "limits")}
    return {kind: amounts for kind, amounts in kinds.items() if amounts}


def _limited(resources: KubeObject, limits: Mapping[str, str]) -> KubeObject:
    """Returns the resources of a step with limits, below which its requests stay."""
    requests = {
        name: min(amount, limits.get(name, amount), key=parse_quantity)
        for name, amount in resources["requests"].items()
    }
    return {"requests": requests, "limits": dict(limits)}
