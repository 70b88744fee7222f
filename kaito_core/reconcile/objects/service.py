"""The Service of a Workspace: its type, annotations and port, as fields and annotations of the Workspace say."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kaito_core.api import KubeObject, Workspace
from kaito_core.api.serving import PORT
from kaito_core.errors import FieldError

__all__ = [
    "LOAD_BALANCER_ANNOTATION",
    "PORT_ANNOTATION",
    "check_service",
    "is_open_to_all",
    "service_metadata",
    "service_spec",
]

LOAD_BALANCER_ANNOTATION = "kaito.sh/enablelb"  # upstream's; exactly "True" turns it on
PORT_ANNOTATION = "kaito.sh/port"  #: port of the container of a Workspace's own template: a number or a port's name

_BALANCER = "LoadBalancer"
_PORT_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?", re.ASCII)


def check_service(workspace: Workspace) -> Iterator[FieldError]:
    """Yields what is wrong with a Workspace's Service."""
    annotations, asked = workspace.metadata.annotations, workspace.inference.service
    kind = _type(workspace)
    if asked is not None and asked.type not in ("", kind):
        yield FieldError(
            "inference.service.type",
            f"must be {kind} or left out where the annotation {LOAD_BALANCER_ANNOTATION} is True, got '{asked.type}'",
        )
    if asked is not None and kind != _BALANCER:
        for name, value in (
            ("loadBalancerClass", asked.load_balancer_class),
            ("loadBalancerSourceRanges", asked.load_balancer_source_ranges),
        ):
            if value:
                yield FieldError(f"inference.service.{name}", f"must be left out unless the type is {_BALANCER}")
    port = annotations.get(PORT_ANNOTATION)
    if port is None:
        return
    field = f"metadata.annotations[{PORT_ANNOTATION}]"
    if workspace.inference.template is None:
        yield FieldError(field, f"must be left out where there is a preset, which is served on port {PORT}")
    elif not (_port_number(port) or _PORT_NAME.fullmatch(port)):
        yield FieldError(field, f"must be a port from 1 to 65535 or the name of a container's port, got '{port}'")


def service_metadata(workspace: Workspace) -> dict[str, Any]:
    """Returns the annotations of the Service as a part of its metadata, {} for none."""
    asked = workspace.inference.service
    return {"annotations": dict(asked.annotations)} if asked is not None and asked.annotations else {}


def service_spec(workspace: Workspace, selector: Mapping[str, str]) -> KubeObject:
    """Returns the spec of the Service that leads to the pods of a selector."""
    spec: KubeObject = {
        "type": _type(workspace),
        "selector": dict(selector),
        "ports": [{"name": "http", "port": 80, "targetPort": _target(workspace), "protocol": "TCP"}],
    }
    if (asked := workspace.inference.service) is not None:
        if asked.load_balancer_class:
            spec["loadBalancerClass"] = asked.load_balancer_class
        if asked.load_balancer_source_ranges:
            spec["loadBalancerSourceRanges"] = list(asked.load_balancer_source_ranges)
    return spec


def is_open_to_all(workspace: Workspace) -> bool:
    """Returns whether addresses outside the cluster reach the Service, with no range of them to which it is limited."""
    asked = workspace.inference.service
    return _type(workspace) == _BALANCER and not (asked is not None and asked.load_balancer_source_ranges)


def _type(workspace: Workspace) -> str:
    if workspace.metadata.annotations.get(LOAD_BALANCER_ANNOTATION) == "True":
        return _BALANCER
    asked = workspace.inference.service
    return asked.type if asked is not None and asked.type else "ClusterIP"


def _target(workspace: Workspace) -> int | str:
    port = workspace.metadata.annotations.get(PORT_ANNOTATION, str(PORT))
    return _port_number(port) or port


def _port_number(text: str) -> int:
    """Returns a port, 0 where the text is none."""
    return int(text) if re.fullmatch("[0-9]{1,5}", text, re.ASCII) and 1 <= int(text) <= 65535 else 0
