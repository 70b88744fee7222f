"""The checked-in CRD: generated from the models, with bounds for all that rules read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

import kaito_core
from kaito_core.api.workspace.crd import crd_yaml, workspace_crd
from kaito_core.api.workspace.model import Inference, Resource, Scale
from kaito_testing.kube.errors import ApiError
from kaito_testing.world.cluster import FakeCluster

CHECKED_IN = Path(kaito_core.__file__).parent / "crds" / "workspaces.yaml"
CRD = workspace_crd()
SCHEMA: dict[str, Any] = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside a schema, with its path."""
    yield path or ".", schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


def place(path: str) -> dict[str, Any]:
    return dict(nodes(SCHEMA))[path]


def test_the_checked_in_file_is_what_the_models_give() -> None:
    assert CHECKED_IN.read_text() == crd_yaml(), (
        "regenerate it: python -m kaito_core.api.workspace.crd > kaito_core/crds/workspaces.yaml"
    )


def test_the_file_reads_back_as_the_crd() -> None:
    assert yaml.safe_load(crd_yaml()) == CRD


def test_both_versions_are_served_with_one_schema_and_the_last_is_stored() -> None:
    versions = CRD["spec"]["versions"]
    assert [(v["name"], v["served"], v["storage"]) for v in versions] == [
        ("v1alpha1", True, False),
        ("v1beta1", True, True),
    ]
    assert versions[0]["schema"] == versions[1]["schema"]
    assert all(version["subresources"]["status"] == {} for version in versions)
    scales = [version["subresources"]["scale"] for version in versions]
    assert all(scale["specReplicasPath"] == ".spec.replicas" for scale in scales)
    assert CRD["metadata"]["name"] == f"{CRD['spec']['names']['plural']}.{CRD['spec']['group']}"


def test_everything_that_a_rule_can_see_is_bounded() -> None:
    for path, node in nodes(SCHEMA):
        if path.startswith((".status", ".apiVersion", ".kind")) or ".template" in path:
            continue  # no rule looks there
        kind = node.get("type")
        assert kind != "string" or "maxLength" in node or "enum" in node, path
        assert kind != "array" or "maxItems" in node, path
        assert "additionalProperties" not in node or "maxProperties" in node, path


def test_defaults_are_given_where_asked_for_and_are_valid() -> None:
    defaults = {path: node["default"] for path, node in nodes(SCHEMA) if "default" in node}
    assert defaults == {".resource.count": 1}
    for path, default in defaults.items():
        jsonschema.validate(default, place(path))


def test_metadata_is_restricted_by_name_alone() -> None:
    # The API server refuses a CRD that says anything of metadata but the forms of name and generateName.
    assert set(place(".metadata")) == {"type", "properties"}
    assert set(place(".metadata")["properties"]) == {"name"}


@pytest.mark.parametrize(("model", "path"), [(Inference, ".inference"), (Resource, ".resource"), (Scale, ".spec")])
def test_every_field_of_the_models_is_there(model: Any, path: str) -> None:
    assert set(place(path)["properties"]) == {field.alias for field in model.model_fields.values()}


def test_every_field_is_described() -> None:
    fields = {path: node for path, node in nodes(SCHEMA) if not path.endswith(("[]", "{}"))}
    # The parts of a pod template are Kubernetes' own, and it refuses a description of metadata.
    bare = [path for path, node in fields.items() if not node.get("description")]
    assert [path for path in bare if not path.startswith(".inference.template.")] == [".metadata"]
    assert "from -10 to 10" in fields[".inference.adapters[].strength"]["description"]


def test_parts_that_kubernetes_gives_a_meaning_to_keep_what_they_hold() -> None:
    template = {path: node for path, node in nodes(SCHEMA) if path.startswith(".inference.template")}
    parts = [*template.values(), place(".inference.adapters[].source.volumeSource")]
    objects = [node for node in parts if node["type"] == "object"]
    assert len(objects) > 10
    assert all(node["x-kubernetes-preserve-unknown-fields"] is True for node in objects)


def with_rule(path: str, rule: dict[str, Any]) -> dict[str, Any]:
    """The CRD with one rule at a place of its schema, in place of those that are there."""
    crd: dict[str, Any] = json.loads(json.dumps(CRD))  # a copy in which no two places share a part
    for version in crd["spec"]["versions"]:
        dict(nodes(version["schema"]["openAPIV3Schema"]))[path]["x-kubernetes-validations"] = [rule]
    return crd


#: Rules that are not CEL, each with the field that the API server names.
BROKEN_RULES: dict[str, tuple[dict[str, Any], str]] = {
    "no text": ({"rule": ""}, "rule"),
    "no CEL": ({"rule": "self.name =="}, "rule"),
    "an unknown variable": ({"rule": "other == 1"}, "rule"),
}


@pytest.mark.parametrize("what", BROKEN_RULES)
def test_the_emulated_api_refuses_rules_that_are_not_cel(what: str, kaito_cluster: FakeCluster) -> None:
    rule, field = BROKEN_RULES[what]
    with pytest.raises(ApiError, match="is invalid") as caught:
        kaito_cluster.create(with_rule(".inference.adapters[].source", rule))
    assert caught.value.details is not None
    fields = [cause["field"] for cause in caught.value.details["causes"]]
    assert any(found.endswith(f"properties[source].x-kubernetes-validations[0].{field}") for found in fields), fields


def test_both_versions_of_openapi_readers_understand_the_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
