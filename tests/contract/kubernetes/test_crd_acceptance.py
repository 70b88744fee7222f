"""The record of a real API server that accepted our CRD: the emulated one judges neither structure nor costs."""

import copy
from typing import Any

import pytest

from helpers.crd_record import RECORD, digest, read_record
from kaito_core.api.workspace.crd import workspace_crd
from kaito_core.api.workspace.rules import RULES, Rule

CRD: dict[str, Any] = workspace_crd()
HOW = (
    "the CRD changed since a real API server accepted it. Run tests/cluster against one (KUBEBUILDER_ASSETS or"
    f" KAITO_TEST_KUBECONFIG), which writes {RECORD.name} anew. Where there is none, say so in that file"
)


def test_a_real_api_server_has_accepted_this_crd() -> None:
    record, found = read_record(), digest(CRD)
    if record.get("unchecked_sha256") == found:
        pytest.skip(f"no real API server has seen this CRD: the last one accepted is of commit {record['commit']}")
    assert record["verdict"] == "accepted"
    assert record["sha256"] == found, f'{HOW}: "unchecked_sha256": "{found}"'


def changed(*path: str | int, value: Any) -> dict[str, Any]:
    """The CRD with a value at a path."""
    crd = copy.deepcopy(CRD)
    place: Any = crd
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return crd


SCHEMA = ("spec", "versions", 1, "schema", "openAPIV3Schema")


def test_words_for_people_do_not_change_the_digest() -> None:
    described = changed(*SCHEMA, "description", value="A model that is served.")
    assert digest(described) == digest(CRD)
    assert digest(changed("spec", "names", "categories", value=["all"])) == digest(CRD)
    rule = (*SCHEMA, "properties", "inference", "x-kubernetes-validations", 0)
    assert digest(changed(*rule, "message", value="must be otherwise")) == digest(CRD)
    assert digest(changed(*rule, "rule", value="true")) != digest(CRD)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.place)
def test_a_server_takes_the_messages_of_rules(rule: Rule) -> None:
    assert 0 < len(rule.message) <= 2048 and "\n" not in rule.message


@pytest.mark.parametrize(
    "path", [(*SCHEMA, "properties", "inference", "nullable"), (*SCHEMA, "properties", "description")]
)
def test_what_a_server_judges_changes_the_digest(path: tuple[str | int, ...]) -> None:
    assert digest(changed(*path, value={"type": "string"})) != digest(CRD)
