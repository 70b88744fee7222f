"""The CustomResourceDefinition, generated from the pydantic models, so that the two cannot disagree.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from collections.abc import Mapping
from typing import Any

from kaito_core.api.strength import MAX_STRENGTH, MAX_STRENGTH_TEXT, STRENGTH_PATTERN
from kaito_core.api.workspace.formats import WORKSPACE_NAME
from kaito_core.api.workspace.model import GROUP, VERSIONS, Inference, Resource
from kaito_core.api.workspace.rules import RULES
from kaito_core.api.yaml_text import dump_yaml

__all__ = ["crd_yaml", "workspace_crd"]

#: What a JSON schema says and a structural schema must not, or need not.
_DROPPED = ("$defs", "title", "additionalProperties", "default", "description", "const", "propertyNames")
_ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
#: A string or a number. A structural schema has no type for that, so each keyword binds the values that it knows: the
#: pattern strings, the bounds numbers, and limits that cannot be met keep lists and mappings out.
_STRENGTH = {
    "x-kubernetes-preserve-unknown-fields": True,
    "pattern": STRENGTH_PATTERN,
    "maxLength": MAX_STRENGTH_TEXT,
    "minimum": -MAX_STRENGTH,
    "maximum": MAX_STRENGTH,
    "not": {"enum": [True, False]},
    **{f"min{parts}": 1 for parts in ("Items", "Properties")},
    **{f"max{parts}": 0 for parts in ("Items", "Properties")},
}
_STRING = {"type": "string"}


def _structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a pydantic schema without references, unions with null and keywords that the API refuses."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _structural(definitions[name], definitions)
    if "anyOf" in schema:
        (only,) = [option for option in schema["anyOf"] if option.get("type") != "null"]
        return _structural(only, definitions)
    result = {key: value for key, value in schema.items() if key not in _DROPPED}
    if "properties" in result:
        result["properties"] = {
            name: _STRENGTH if name == "strength" else _structural(value, definitions)
            for name, value in result["properties"].items()
        }
    elif result.get("type") == "object":
        # A structural schema knows no patterns of keys; a rule checks those.
        (values,) = result.pop("patternProperties", {"": schema.get("additionalProperties")}).values()
        if not isinstance(values, Mapping):
            return {**result, **_ANYTHING}
        number = values.get("type") == "number"
        result["additionalProperties"] = _STRENGTH if number else _structural(values, definitions)
    if "items" in result:
        result["items"] = _structural(result["items"], definitions)
    return result


def _spec(model: type[Inference] | type[Resource]) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True)
    return _structural(schema, schema.get("$defs", {}))


def _place(schema: dict[str, Any], place: str) -> dict[str, Any]:
    """Returns the schema at a place such as `inference.adapters[].source`."""
    for name in place.replace("[]", ".[]").split("."):
        if name:
            schema = schema["items"] if name == "[]" else schema["properties"][name]
    return schema


def _resource() -> dict[str, Any]:
    schema = _spec(Resource)
    schema["properties"]["count"]["default"] = 1
    return schema


def _status() -> dict[str, Any]:
    condition = {
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": {**_STRING, "maxLength": 316},
            "status": {**_STRING, "enum": ["True", "False", "Unknown"]},
            "reason": {**_STRING, "maxLength": 1024},
            "message": {**_STRING, "maxLength": 32768},
            "lastTransitionTime": {**_STRING, "format": "date-time"},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        },
    }
    adapter = {
        "type": "object",
        "required": ["name"],
        "properties": {
            **{key: _STRING for key in ("name", "strength", "digest", "state", "message")},
            "replicas": {"type": "integer"},
        },
    }
    return {
        "type": "object",
        "properties": {
            "conditions": {
                "type": "array",
                "items": condition,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
            "state": _STRING,
            "workerNodes": {"type": "array", "items": _STRING},
            "observedGeneration": {"type": "integer", "format": "int64"},
            "endpoint": _STRING,
            "adapters": {
                "type": "array",
                "items": adapter,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
        },
    }


def _columns() -> list[dict[str, Any]]:
    def condition(name: str, **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "type": "string",
            "jsonPath": f'.status.conditions[?(@.type=="{name}")].status',
            **more,
        }

    return [
        {"name": "Instance", "type": "string", "jsonPath": ".resource.instanceType"},
        condition("ResourceReady"),
        condition("InferenceReady"),
        condition("WorkspaceSucceeded"),
        {"name": "State", "type": "string", "jsonPath": ".status.state"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        {"name": "Preset", "type": "string", "jsonPath": ".inference.preset.name", "priority": 1},
        {"name": "Nodes", "type": "string", "jsonPath": ".status.workerNodes", "priority": 1},
    ]


def workspace_crd() -> dict[str, Any]:
    """Returns the CRD of the Workspace: one schema under every served version."""
    schema = {
        "type": "object",
        "required": ["inference"],
        "properties": {
            "apiVersion": _STRING,
            "kind": _STRING,
            # Pods, Services and labels carry the name; a Service's is the strictest.
            "metadata": {
                "type": "object",
                "properties": {
                    "name": {**_STRING, "maxLength": WORKSPACE_NAME.longest, "pattern": WORKSPACE_NAME.pattern}
                },
            },
            "resource": _resource(),
            "inference": _spec(Inference),
            "status": _status(),
        },
    }
    for rule in RULES:
        _place(schema, rule.place).setdefault("x-kubernetes-validations", []).append(rule.to_dict())
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"workspaces.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "Workspace",
                "listKind": "WorkspaceList",
                "plural": "workspaces",
                "singular": "workspace",
                "shortNames": ["wk", "wks"],
                "categories": ["workspace"],
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": version == VERSIONS[-1],
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(),
                    "schema": {"openAPIV3Schema": schema},
                }
                for version in VERSIONS
            ],
        },
    }


def crd_yaml() -> str:
    """Returns the CRD as the text of `crds/workspaces.yaml`."""
    head = "# Generated from kaito_core/api by `python -m kaito_core.api.workspace.crd`; do not edit.\n"
    return head + dump_yaml([workspace_crd()])


if __name__ == "__main__":
    print(crd_yaml(), end="")
