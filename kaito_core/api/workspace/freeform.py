"""Parts of a Workspace whose fields Kubernetes defines: volume sources, pod templates, and the status.

Only what kaito reads or extends is checked here; the API server checks the rest.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from kaito_core.api.messages import clipped, fault, shown

__all__ = ["FreeForm", "PodTemplate", "check_shape"]

_MOST_VALUES = 100_000  # YAML anchors make a short document large, or endless
_DEEPEST = 100


class _Budget:
    """Limits the number of values in a document."""

    def __init__(self) -> None:
        self.left = _MOST_VALUES

    def plain(self, value: object, path: str, depth: int = 0) -> Any:
        """Returns JSON data without null values in mappings, which the API drops as well."""
        self.left -= 1
        if self.left < 0 or depth > _DEEPEST:
            raise fault(f"must have at most {_MOST_VALUES} values, {_DEEPEST} levels deep")
        if value is None or isinstance(value, str | bool | int | float):
            return value
        if isinstance(value, list | tuple):
            return [self.plain(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        if not isinstance(value, Mapping):
            raise fault(f"must be JSON data, got {shown(value)}{_at(path)}; put it in quotes")
        result = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise fault(f"must have strings for keys, got {shown(key)}{_at(path)}; put it in quotes")
            if item is not None:
                result[key] = self.plain(item, f"{path}.{clipped(key)}", depth + 1)
        return result


def _at(path: str) -> str:
    return f" at {path[1:]}" if path else ""


def _free_form(value: object) -> object:
    return _Budget().plain(value, "") if isinstance(value, Mapping) else value


def check_shape(value: object, shape: object, path: str) -> None:
    """Checks that the parts of a value that have a place in a shape are mappings and lists where the shape is one.

    Raises:
        PydanticCustomError: One is not; names its path, below `path`.
    """
    if isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            raise fault(f"must have a mapping in {path}, got {shown(value)}")
        for name, part in shape.items():
            if name in value:
                check_shape(value[name], part, f"{path}.{name}" if path else name)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise fault(f"must have a list in {path}, got {shown(value)}")
        for index, item in enumerate(value):
            check_shape(item, shape[0], f"{path}[{index}]")


def _pod_template(value: object) -> object:
    template = _free_form(value)
    if not isinstance(template, Mapping):
        return template
    check_shape(template, _TEMPLATE, "")
    if not template.get("spec", {}).get("containers"):
        raise fault("must have at least one container in spec.containers")
    return template


_CONTAINER: Mapping[str, Any] = {"env": [{}], "volumeMounts": [{}]}
#: The parts of a pod template that kaito reads or extends.
_TEMPLATE: Mapping[str, Any] = {
    "metadata": {"labels": {}},
    "spec": {
        "affinity": {},
        "tolerations": [{}],
        "volumes": [{}],
        "initContainers": [_CONTAINER],
        "containers": [_CONTAINER],
    },
}


def _structural(shape: object) -> dict[str, Any]:
    """Returns the CRD's schema of a shape: its parts have their types, and all other fields are kept."""
    if isinstance(shape, list):
        return {"type": "array", "items": _structural(shape[0])}
    assert isinstance(shape, Mapping)
    schema: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if shape:
        schema["properties"] = {name: _structural(part) for name, part in shape.items()}
    return schema


def _template_schema() -> dict[str, Any]:
    schema = _structural(_TEMPLATE)
    schema["required"] = ["spec"]
    spec = schema["properties"]["spec"]
    spec["required"] = ["containers"]
    spec["properties"]["containers"]["minItems"] = 1
    return schema


#: JSON data, passed on unchanged.
FreeForm = Annotated[dict[str, Any], BeforeValidator(_free_form)]
#: A PodTemplateSpec that kaito can add labels, tolerations and affinity to.
PodTemplate = Annotated[dict[str, Any], BeforeValidator(_pod_template), WithJsonSchema(_template_schema())]
