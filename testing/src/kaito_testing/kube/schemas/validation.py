"""Validation of built-in types, as far as clients meet it: names, workloads, and fields that must not change."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from kaito_testing.kube.errors import Cause
from kaito_testing.kube.resources import CRDS, Resource
from kaito_testing.kube.schemas.crds import crd_problems

__all__ = ["check_change", "check_new"]

Object = dict[str, Any]

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_SERVICE = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start"
    " and end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    r" '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with"
    f" an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{_LABEL}')"
)
_SERVICE_RULE = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character,"
    " and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is"
    f" '{_SERVICE}')"
)
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_POD_RULE = (
    "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing"
    " tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def check_new(resource: Resource, obj: Object) -> list[Cause]:
    """What is wrong with an object, whether it is new or changed."""
    causes = _name_problems(resource, obj["metadata"]["name"])
    for key, value in (obj["metadata"].get("labels") or {}).items():
        if not isinstance(value, str) or len(value) > 63 or not _LABEL_VALUE.fullmatch(value):
            rule = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'"
            causes.append(Cause("metadata.labels", f"Invalid value: {json.dumps(value)}: {rule} (label {key})"))
    if resource.storage == CRDS.storage:
        return causes + crd_problems(obj)
    if resource.kind in ("Deployment", "StatefulSet", "ReplicaSet") and resource.group == "apps":
        causes += _workload_problems(obj)
    if resource.kind in ("Pod", "Deployment", "StatefulSet", "Job") and not resource.custom:
        causes += _container_problems(obj)
    return causes


def _name_problems(resource: Resource, name: str) -> list[Cause]:
    pattern, rule, limit = _SUBDOMAIN, _SUBDOMAIN_RULE, 253
    if not resource.custom and resource.kind == "Service":
        pattern, rule, limit = _SERVICE, _SERVICE_RULE, 63
    elif not resource.custom and resource.kind == "Namespace":
        pattern, rule, limit = _LABEL, _LABEL_RULE, 63
    if resource.group == "rbac.authorization.k8s.io":
        return []  # any path segment is a valid name
    if not re.fullmatch(pattern, name):
        return [Cause("metadata.name", f'Invalid value: "{name}": {rule}')]
    if len(name) > limit:
        return [Cause("metadata.name", f'Invalid value: "{name}": must be no more than {limit} characters')]
    return []


def _workload_problems(obj: Object) -> list[Cause]:
    selector = obj["spec"].get("selector")
    if not selector:
        return [Cause("spec.selector", "Required value", "FieldValueRequired")]
    labels = (obj["spec"].get("template", {}).get("metadata") or {}).get("labels") or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        shown = json.dumps(labels, separators=(",", ":"))
        message = f"Invalid value: {shown}: `selector` does not match template `labels`"
        return [Cause("spec.template.metadata.labels", message)]
    return []


def _container_problems(obj: Object) -> list[Cause]:
    prefix = "spec" if obj["kind"] == "Pod" else "spec.template.spec"
    spec = obj["spec"] if obj["kind"] == "Pod" else obj["spec"]["template"]["spec"]
    if not spec.get("containers"):
        return [Cause(f"{prefix}.containers", "Required value", "FieldValueRequired")]
    causes: list[Cause] = []
    volumes = {volume.get("name") for volume in spec.get("volumes") or ()}
    seen: set[str] = set()
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            where = f"{prefix}.{field}[{index}]"
            name = container.get("name", "")
            if not re.fullmatch(_LABEL, name):
                causes.append(Cause(f"{where}.name", f'Invalid value: "{name}": {_LABEL_RULE}'))
            elif name in seen:
                causes.append(Cause(f"{where}.name", f'Duplicate value: "{name}"', "FieldValueDuplicate"))
            seen.add(name)
            if not container.get("image"):
                causes.append(Cause(f"{where}.image", "Required value", "FieldValueRequired"))
            for number, mount in enumerate(container.get("volumeMounts") or ()):
                if mount.get("name") not in volumes:
                    path, shown = f"{where}.volumeMounts[{number}].name", json.dumps(mount.get("name"))
                    causes.append(Cause(path, f"Not found: {shown}", "FieldValueNotFound"))
    return causes


def check_change(resource: Resource, old: Object, new: Object, subresource: str) -> list[Cause]:
    """What is wrong with a change of an object."""
    causes = _finalizer_problems(old, new)
    rule = None if resource.custom else _CHANGES.get((resource.group, resource.kind, subresource))
    return causes + (rule(old, new) if rule else [])


def _finalizer_problems(old: Object, new: Object) -> list[Cause]:
    if "deletionTimestamp" not in old["metadata"]:
        return []
    had = old["metadata"].get("finalizers") or []
    late = [name for name in new["metadata"].get("finalizers") or [] if name not in had]
    if not late:
        return []
    shown = ", ".join(json.dumps(name) for name in late)
    message = (
        "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers"
        f" []string{{{shown}}}"
    )
    # The server checks metadata twice, once for every object and once for the kind, and reports both.
    return [Cause("metadata.finalizers", message, "FieldValueForbidden")] * 2


def _immutable(field: str) -> Callable[[Object, Object], list[Cause]]:
    def check(old: Object, new: Object) -> list[Cause]:
        if old["spec"].get(field) == new["spec"].get(field):
            return []
        shown = json.dumps(new["spec"].get(field), separators=(",", ":"))
        return [Cause(f"spec.{field}", f"Invalid value: {shown}: field is immutable")]

    return check


def _statefulset(old: Object, new: Object) -> list[Cause]:
    mutable = (
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    )
    was = {name: value for name, value in old["spec"].items() if name not in mutable}
    is_ = {name: value for name, value in new["spec"].items() if name not in mutable}
    if was == is_:
        return []
    allowed = ", ".join(f"'{name}'" for name in mutable[:-1])
    message = (
        f"Forbidden: updates to statefulset spec for fields other than {allowed} and '{mutable[-1]}' are forbidden"
    )
    return [Cause("spec", message, "FieldValueForbidden")]


def _service(old: Object, new: Object) -> list[Cause]:
    was, is_ = old["spec"].get("clusterIP"), new["spec"].get("clusterIP")
    if not was or was == is_ or new["spec"].get("type") == "ExternalName":
        return []
    return [Cause("spec.clusterIPs[0]", f"Invalid value: {json.dumps([is_])}: may not change once set")]


def _pod(old: Object, new: Object) -> list[Cause]:
    def fixed(pod: Object) -> Object:
        spec = {
            name: value for name, value in pod["spec"].items() if name not in ("activeDeadlineSeconds", "tolerations")
        }
        for field in ("containers", "initContainers"):
            if field in spec:
                spec[field] = [{**container, "image": ""} for container in spec[field]]
        return spec

    was, is_ = old["spec"].get("tolerations") or [], new["spec"].get("tolerations") or []
    if fixed(old) == fixed(new) and all(toleration in is_ for toleration in was):
        return []
    return [Cause("spec", _POD_RULE, "FieldValueForbidden")]


def _ephemeral(old: Object, new: Object) -> list[Cause]:
    was = {container["name"]: container for container in old["spec"].get("ephemeralContainers") or ()}
    is_ = {container["name"]: container for container in new["spec"].get("ephemeralContainers") or ()}
    causes = [
        Cause(
            f"spec.ephemeralContainers[{index}].{field}",
            "Forbidden: cannot be set for an Ephemeral Container",
            "FieldValueForbidden",
        )
        for index, container in enumerate(new["spec"].get("ephemeralContainers") or ())
        for field in ("resources", "ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle")
        if container.get(field)
    ]
    for name, container in was.items():
        if is_.get(name) != container:
            verb = "changed" if name in is_ else "removed"
            message = f'Forbidden: existing ephemeral containers "{name}" may not be {verb}'
            causes.append(Cause("spec.ephemeralContainers", message, "FieldValueForbidden"))
    return causes


_CHANGES: dict[tuple[str, str, str], Callable[[Object, Object], list[Cause]]] = {
    ("apps", "Deployment", ""): _immutable("selector"),
    ("apps", "ReplicaSet", ""): _immutable("selector"),
    ("apps", "StatefulSet", ""): _statefulset,
    ("", "Service", ""): _service,
    ("", "Pod", ""): _pod,
    ("", "Pod", "ephemeralcontainers"): _ephemeral,
}
