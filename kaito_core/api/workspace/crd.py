"""The CustomResourceDefinition of the Workspace, generated from the records in `model` and the rules in `rules`.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from collections.abc import Mapping
from typing import Any

from kaito_core.api.docstrings import flowed, summary
from kaito_core.api.strength import MAX_STRENGTH, MAX_STRENGTH_TEXT, STRENGTH_PATTERN
from kaito_core.api.workspace.formats import WORKSPACE_NAME
from kaito_core.api.workspace.model import GROUP, VERSIONS, Inference, Resource, Scale, Workspace
from kaito_core.api.workspace.rules import RULES
from kaito_core.api.yaml_text import dump_yaml

__all__ = ["crd_yaml", "workspace_crd"]

#: Keywords of JSON schemas that a structural schema refuses or does not need.
_DROPPED = ("$defs", "title", "additionalProperties", "default", "const", "propertyNames")
_ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
#: A string or a number. A structural schema has no type for that, so each keyword is for the values that it applies to:
#: the pattern for strings, the bounds for numbers, and limits that cannot be met keep lists and mappings out.
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


def _structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a pydantic schema without references, unions with null and keywords that the API refuses."""
    # A field's own description comes first, and replaces that of its type.
    described = {"description": schema["description"]} if "description" in schema else {}
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return {**described, **_structural(definitions[name], definitions), **described}
    if "anyOf" in schema:
        (only,) = [option for option in schema["anyOf"] if option.get("type") != "null"]
        return {**described, **_structural(only, definitions), **described}
    result = described | {key: value for key, value in schema.items() if key not in _DROPPED}
    if "properties" in result:
        result["properties"] = {name: _field(name, value, definitions) for name, value in result["properties"].items()}
    elif result.get("type") == "object":
        # A structural schema has no patterns of keys; a rule checks those.
        (values,) = result.pop("patternProperties", {"": schema.get("additionalProperties")}).values()
        if not isinstance(values, Mapping):
            return result | _ANYTHING
        number = values.get("type") == "number"
        result["additionalProperties"] = _STRENGTH if number else _structural(values, definitions)
    if "items" in result:
        result["items"] = _structural(result["items"], definitions)
    return result


def _field(name: str, schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    if name == "strength":
        return {"description": schema["description"], **_STRENGTH}
    return _structural(schema, definitions)


def _spec(model: type[Inference] | type[Resource] | type[Scale]) -> dict[str, Any]:
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


def _string(description: str, **keywords: Any) -> dict[str, Any]:
    return {"description": description, "type": "string", **keywords}


def _integer(description: str, **keywords: Any) -> dict[str, Any]:
    return {"description": description, "type": "integer", **keywords}


def _map_by(key: str, description: str, items: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the schema of a list whose entries are told apart by a key."""
    return {
        "description": description,
        "type": "array",
        "items": items,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
    }


def _status() -> dict[str, Any]:
    condition = {
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": _string("What is observed, such as InferenceReady.", maxLength=316),
            "status": _string(
                "True, False for a known bad state, or Unknown while in progress.", enum=["True", "False", "Unknown"]
            ),
            "reason": _string("Category of the cause.", maxLength=1024),
            "message": _string("The cause in words, and the next step.", maxLength=32768),
            "lastTransitionTime": _string("When the status last changed.", format="date-time"),
            "observedGeneration": _integer("Generation that was observed.", format="int64", minimum=0),
        },
    }
    adapter = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": _string("The adapter's name."),
            "strength": _string("The strength that is asked for."),
            "digest": _string("What the adapter's files hash to."),
            "state": _string("Ready, Loading or Failed."),
            "message": _string("What is missing, or why the adapter failed."),
            "replicas": _integer("Number of replicas that have applied it at this strength."),
        },
    }
    return {
        "description": "What the operator last observed.",
        "type": "object",
        "properties": {
            "conditions": _map_by("type", "Observations, each with its cause and the next step.", condition),
            "state": _string("The conditions in one word: Pending, Ready, NotReady or Failed."),
            "replicas": _integer("Number of pods that there are; the scale subresource shows it.", minimum=0),
            "selector": _string("Label selector of the pods, for autoscalers."),
            "workerNodes": {
                "description": "Names of the nodes that serve the Workspace.",
                "type": "array",
                "items": {"type": "string"},
            },
            "observedGeneration": _integer("Generation of the Workspace that was observed.", format="int64"),
            "endpoint": _string("URL of the OpenAI-compatible API inside the cluster."),
            "nodeNotes": {
                "description": "What the node provider has to remember, such as when it asks for machines again.",
                "type": "object",
                "additionalProperties": {"type": "string"},
            },
            "unused": {
                "description": "What the Workspace, or the ConfigMap of inference.config, says that has no effect.",
                "type": "array",
                "items": {"type": "string"},
            },
            "adapters": _map_by("name", "What the replicas have applied of each adapter.", adapter),
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
        "description": flowed(summary(Workspace)),
        "type": "object",
        "properties": {
            "apiVersion": _string("Version of this schema: kaito.sh/v1beta1 or kaito.sh/v1alpha1."),
            "kind": _string('Always "Workspace".'),
            # An API server refuses a description of metadata itself.
            "metadata": {
                "type": "object",
                "properties": {
                    "name": _string(
                        "Name of the Workspace, of its Service and of its pods.",
                        maxLength=WORKSPACE_NAME.longest,
                        pattern=WORKSPACE_NAME.pattern,
                    )
                },
            },
            "spec": _spec(Scale),
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
                "categories": ["all", "kaito"],
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": version == VERSIONS[-1],
                    "subresources": {
                        "status": {},
                        # An API server takes a path below .spec alone.
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
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
