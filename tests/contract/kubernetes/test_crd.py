"""The checked-in CRD: generated from the models, structural, and within what rules may cost."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

import kaito_core
from kaito_core.api.workspace.crd import crd_yaml, workspace_crd
from kaito_core.api.workspace.model import Inference, Resource
from kaito_core.api.workspace.rules import RULES
from kaito_testing.kube.errors import ApiError
from kaito_testing.kube.schemas.cel_cost import MOST_PER_CRD, MOST_PER_RULE, rule_costs, too_costly
from kaito_testing.kube.schemas.structural import structural_causes
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
    assert all(version["subresources"] == {"status": {}} for version in versions)
    assert CRD["metadata"]["name"] == f"{CRD['spec']['names']['plural']}.{CRD['spec']['group']}"


def test_the_schema_is_structural() -> None:
    assert structural_causes(CRD) == []


def test_the_rules_cost_little_of_what_the_api_server_allows() -> None:
    assert too_costly(CRD) == []
    costs = list(rule_costs(SCHEMA, ""))
    assert len(costs) == len(RULES)
    assert max(cost.cost for cost in costs) < MOST_PER_RULE / 10
    assert sum(cost.cost for cost in costs) < MOST_PER_CRD / 10
    assert all(cost.cost > 0 for cost in costs), "0 is what the estimate gives where it does not know a function"


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


@pytest.mark.parametrize(("model", "path"), [(Inference, ".inference"), (Resource, ".resource")])
def test_every_field_of_the_models_is_there(model: Any, path: str) -> None:
    assert set(place(path)["properties"]) == {field.alias for field in model.model_fields.values()}


def test_parts_that_kubernetes_gives_a_meaning_to_keep_what_they_hold() -> None:
    template = {path: node for path, node in nodes(SCHEMA) if path.startswith(".inference.template")}
    parts = [*template.values(), place(".inference.adapters[].source.volumeSource")]
    objects = [node for node in parts if node["type"] == "object"]
    assert len(objects) > 10
    assert all(node["x-kubernetes-preserve-unknown-fields"] is True for node in objects)


def broken(path: str, /, **words: Any) -> dict[str, Any]:
    """The CRD with keywords added to the schema at a path; `...` takes one out."""
    crd: dict[str, Any] = json.loads(json.dumps(CRD))  # a copy in which no two places share a part
    for version in crd["spec"]["versions"]:
        found = dict(nodes(version["schema"]["openAPIV3Schema"]))[path]
        for word, given in words.items():
            if given is ...:
                del found[word]
            else:
                found[word] = given
    return crd


RULE = "x-kubernetes-validations"
SOURCE, NAME, COUNT = ".inference.adapters[].source", ".inference.adapters[].source.name", ".resource.count"
#: CRDs that an API server refuses, each with the field of the schema that it names.
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no type": (broken(NAME, type=...), "properties[name].type"),
    "unknown type": (broken(NAME, type="text"), "properties[name].type"),
    "root without type": (broken(".", type="array", items={"type": "string"}), "openAPIV3Schema.type"),
    "reference": (broken(SOURCE, **{"$ref": "#/x"}), "properties[source].$ref"),
    "unique items": (broken(".inference.adapters", uniqueItems=True), "properties[adapters].uniqueItems"),
    "pattern of properties": (
        broken(SOURCE, patternProperties={"a": {"type": "string"}}),
        "properties[source].patternProperties",
    ),
    "array without items": (broken(".inference.adapters", items=...), "properties[adapters].items"),
    "properties of two kinds": (
        broken(SOURCE, additionalProperties={"type": "string"}),
        "properties[source].additionalProperties",
    ),
    "no other properties": (broken(SOURCE, additionalProperties=False), "properties[source].additionalProperties"),
    "fields dropped by word": (
        broken(SOURCE, **{"x-kubernetes-preserve-unknown-fields": False}),
        "properties[source].x-kubernetes-preserve-unknown-fields",
    ),
    "metadata with labels": (
        broken(".metadata", properties={"labels": {"type": "object"}}),
        "properties[metadata]",
    ),
    "default of another type": (broken(COUNT, default="1"), "properties[count].default"),
    "default below the minimum": (broken(COUNT, default=0), "properties[count].default"),
    "default with an unknown field": (broken(".inference.preset.presetOptions", default={"x": "y"}), ".default"),
    "map of nothing": (broken(".status.conditions", **{"x-kubernetes-list-map-keys": []}), "list-map-keys"),
    "map of an unknown key": (broken(".status.conditions", **{"x-kubernetes-list-map-keys": ["x"]}), "list-map-keys"),
    "map of an optional key": (
        broken(".status.conditions[]", required=["status", "reason", "message", "lastTransitionTime"]),
        "properties[type].default",
    ),
    "map of text": (broken(NAME, **{"x-kubernetes-list-type": "map"}), "properties[name].type"),
    "set of objects": (broken(".inference.adapters", **{"x-kubernetes-list-type": "set"}), "x-kubernetes-map-type"),
    "type inside not": (broken(COUNT, **{"not": {"type": "integer", "minimum": 5}}), "properties[count].not.type"),
    "new field inside anyOf": (broken(".", anyOf=[{"properties": {"new": {"minLength": 1}}}]), ".anyOf[0]"),
    "rule without text": (broken(SOURCE, **{RULE: [{"rule": ""}]}), f"{RULE}[0].rule"),
    "rule of no CEL": (broken(SOURCE, **{RULE: [{"rule": "self.name =="}]}), f"{RULE}[0].rule"),
    "rule with an unknown variable": (broken(SOURCE, **{RULE: [{"rule": "other == 1"}]}), f"{RULE}[0].rule"),
    "rule with two lines for a message": (
        broken(SOURCE, **{RULE: [{"rule": "true", "message": "a\nb"}]}),
        f"{RULE}[0].message",
    ),
    "rule for an unknown field": (
        broken(SOURCE, **{RULE: [{"rule": "true", "message": "m", "fieldPath": ".nothing"}]}),
        f"{RULE}[0].fieldPath",
    ),
}
#: CRDs that are refused for what their rules may cost.
COSTLY = {
    "names without an end": broken(NAME, maxLength=...),
    "blends without number": broken(".inference.blends", maxItems=...),
    "optional fields compared": broken(
        ".resource", **{RULE: [{"rule": "self.?instanceType.orValue('') == oldSelf.?instanceType.orValue('')"}]}
    ),
    "three loops": broken(
        ".inference",
        **{RULE: [{"rule": "self.blends.all(a, self.blends.all(b, self.blends.all(c, a.name + b.name != c.name)))"}]},
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_schemas_that_are_not_structural_are_found(what: str) -> None:
    crd, field = BROKEN[what]
    found = structural_causes(crd)
    assert any(field in cause.field for cause in found), found


def test_words_that_a_server_would_drop_in_silence_are_found() -> None:
    assert [cause.field[-5:] for cause in structural_causes(broken(NAME, const="a"))] == ["const", "const"]


@pytest.mark.parametrize("what", COSTLY)
def test_rules_that_cost_too_much_are_found(what: str) -> None:
    assert structural_causes(COSTLY[what]) == []
    assert any("exceeds budget" in cause.message for cause in too_costly(COSTLY[what]))


@pytest.mark.parametrize("crd", [BROKEN["no type"][0], COSTLY["optional fields compared"]], ids=["structure", "cost"])
def test_the_emulated_api_refuses_them(crd: dict[str, Any], fake_cluster: FakeCluster) -> None:
    with pytest.raises(ApiError, match="is invalid"):
        fake_cluster.create(crd)


def test_both_versions_of_openapi_readers_understand_the_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
