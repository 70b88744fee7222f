"""The checked-in CRD: generated from the models, structural, and in agreement with the parser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

import kaito_core
from kaito_core.api import parse_workspace
from kaito_core.api.crd import crd_yaml, workspace_crd
from kaito_core.api.workspace import Inference, Resource
from kaito_core.errors import InvalidWorkspaceError

CHECKED_IN = Path(kaito_core.__file__).parent / "crds" / "workspaces.yaml"
CRD = workspace_crd()
SCHEMA: dict[str, Any] = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]

#: What apiextensions/v1 JSONSchemaProps knows and a structural schema may use.
#: Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
ALLOWED = {
    *("type", "properties", "required", "items", "additionalProperties", "enum", "default", "description", "format"),
    *("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    *("pattern", "nullable", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"),
    *("x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-validations"),
}


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
        "regenerate it: python -m kaito_core.api.crd > kaito_core/crds/workspaces.yaml"
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
    assert all(version["subresources"] == {"status": {}} for version in versions)
    assert CRD["metadata"]["name"] == f"{CRD['spec']['names']['plural']}.{CRD['spec']['group']}"


def test_every_node_uses_words_of_a_structural_schema_only() -> None:
    strange = {path: words for path, node in nodes(SCHEMA) if (words := set(node) - ALLOWED)}
    assert strange == {}, "no $ref, anyOf, const, exclusiveMinimum, title, ..."


def test_every_node_has_a_type_or_keeps_what_it_does_not_know() -> None:
    loose = [
        path
        for path, node in nodes(SCHEMA)
        if "type" not in node and not node.get("x-kubernetes-preserve-unknown-fields")
    ]
    assert loose == []


def test_properties_and_additional_properties_exclude_each_other() -> None:
    assert [path for path, node in nodes(SCHEMA) if {"properties", "additionalProperties"} <= set(node)] == []


def test_arrays_say_what_they_hold_and_required_fields_exist() -> None:
    assert [path for path, node in nodes(SCHEMA) if node.get("type") == "array" and "items" not in node] == []
    for path, node in nodes(SCHEMA):
        assert set(node.get("required", [])) <= set(node.get("properties", {})), path


def test_keys_of_list_maps_are_required_scalars() -> None:
    maps = {path: node for path, node in nodes(SCHEMA) if node.get("x-kubernetes-list-type") == "map"}
    assert set(maps) == {".status.conditions", ".status.adapters"}
    for node in maps.values():
        for key in node["x-kubernetes-list-map-keys"]:
            assert key in node["items"]["required"]
            assert node["items"]["properties"][key]["type"] == "string"


def test_defaults_are_given_where_asked_for_and_are_valid() -> None:
    defaults = {path: node["default"] for path, node in nodes(SCHEMA) if "default" in node}
    assert defaults == {".resource.count": 1}
    for path, default in defaults.items():
        jsonschema.validate(default, place(path))


def test_metadata_is_restricted_by_name_alone() -> None:
    # The API server refuses a CRD that says anything of metadata but the forms of name and generateName.
    assert set(place(".metadata")) == {"type", "properties"}
    assert set(place(".metadata")["properties"]) == {"name"}


@pytest.mark.parametrize(("model", "path"), [(Inference, ".inference"), (Resource, ".resource")])
def test_every_field_of_the_models_is_there(model: Any, path: str) -> None:
    assert set(place(path)["properties"]) == {field.alias for field in model.model_fields.values()}


def test_objects_without_known_fields_keep_what_they_hold() -> None:
    for path in (".inference.template", ".inference.adapters[].source.volumeSource"):
        assert place(path) == {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def document(**parts: Any) -> dict[str, Any]:
    adapter = {"source": {"name": "style", "image": "registry.example/style:1"}, "strength": "0.5"}
    base = {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "demo"},
        "inference": {"preset": {"name": "falcon-7b"}, "adapters": [adapter]},
    }
    return {**base, **parts}


def with_strength(value: object) -> dict[str, Any]:
    source = {"name": "style", "image": "registry.example/style:1"}
    return document(inference={"preset": {"name": "m"}, "adapters": [{"source": source, "strength": value}]})


GOOD = [
    document(),
    document(resource={"count": 2, "instanceType": "x", "preferredNodes": ["a"], "labelSelector": {}}),
    document(inference={"template": {"spec": {"containers": [{"name": "a", "anything": {"at": ["all"]}}]}}}),
    *(with_strength(value) for value in ("0.2", 1, -10, "1e-3", 0.25, ".5")),
]
#: Documents that both refuse, and what is wrong with them.
BAD = {
    "no inference": {key: value for key, value in document().items() if key != "inference"},
    "count": document(resource={"count": 0}),
    "count as text": document(resource={"count": "2"}),
    "preset without name": document(inference={"preset": {}}),
    "access mode": document(inference={"preset": {"name": "a", "accessMode": "secret"}}),
    "operator": document(resource={"labelSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}}),
    "name": document(metadata={"name": "Demo"}),
    "long name": document(metadata={"name": "a" * 53}),
    "digest": document(
        inference={"preset": {"name": "a"}, "adapters": [{"source": {"name": "b", "image": "c"}, "digest": "x"}]}
    ),
    "adapter without source": document(inference={"preset": {"name": "a"}, "adapters": [{"strength": 1}]}),
    "eleven adapters": document(
        inference={
            "preset": {"name": "m"},
            "adapters": [{"source": {"name": f"a{i}", "image": "x"}} for i in range(11)],
        }
    ),
    "empty blend strength": document(
        inference={
            "preset": {"name": "m"},
            "adapters": [{"source": {"name": "a", "image": "x"}}],
            "blends": [{"name": "b", "strengths": {"a": ""}}],
        }
    ),
    **{f"strength {value!r}": with_strength(value) for value in ("NaN", "inf", "abc", 11, -11, "", "0x1", "1 ")},
}


@pytest.mark.parametrize("good", GOOD, ids=range(len(GOOD)))
def test_good_documents_pass_the_schema_and_the_parser(good: dict[str, Any]) -> None:
    jsonschema.validate(good, SCHEMA)
    parse_workspace(good)


@pytest.mark.parametrize("what", BAD)
def test_bad_documents_fail_both(what: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(BAD[what], SCHEMA)
    with pytest.raises(InvalidWorkspaceError):
        parse_workspace(BAD[what])
