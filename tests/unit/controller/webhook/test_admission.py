"""The decision of the admission webhook: what is refused, what never is, and malformed reviews."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kaito_core import hookimpl
from kaito_core.api import Weights, parse_workspace, strength
from kaito_core.controller.webhook import admission
from kaito_core.controller.webhook.admission import MalformedReviewError, review_response
from kaito_core.errors import FieldError
from kaito_core.plugins import PluginRegistry
from kaito_gpu_azure.provider import AzureProvider
from kaito_testing.cases.workspaces import CASES, Case, workspace_document
from kaito_testing.registry import example_preset, registry_with

Document = dict[str, Any]


class Objector:
    """A plugin that refuses one preset in one namespace."""

    @hookimpl
    def kaito_validate_workspace(self, workspace: Any, preset: Any) -> list[FieldError]:
        if workspace.namespace == "shop" and preset is not None:
            return [FieldError("inference.preset.name", f"'{preset.name}' may not be used in the namespace 'shop'")]
        return []


def registry() -> PluginRegistry:
    presets = [example_preset(name=name) for name in ("falcon-7b", "falcon-40b", "m")]
    found = registry_with(presets)
    found.register(Objector(), "objector")
    return found


REGISTRY = registry()


def review(operation: str, new: object = None, old: object = None, **more: Any) -> Document:
    request = {"uid": "u-1", "operation": operation, "object": new, "oldObject": old, **more}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def verdict(operation: str, new: object = None, old: object = None) -> Document:
    found = review_response(review(operation, new, old), REGISTRY)
    assert (found["apiVersion"], found["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: Document = found["response"]
    assert response["uid"] == "u-1"
    return response


BAD = workspace_document(inference__adapters=[{"source": {"name": "style", "image": "i"}, "strength": "NaN"}])


@pytest.mark.parametrize("case", [case for case in CASES if case.refused], ids=lambda case: case.id)
def test_it_refuses_each_row_that_is_refused(case: Case) -> None:
    response = verdict("CREATE" if case.old is None else "UPDATE", case.new, case.old)
    assert response["allowed"] is False
    causes = response["status"]["details"]["causes"]
    assert all(any(cause["field"].startswith(field) for cause in causes) for field in case.refused)


def test_it_allows_each_edit_that_is_accepted() -> None:
    known = [case for case in CASES if case.old is not None and not case.refused]
    assert [case.id for case in known if not verdict("UPDATE", case.new, case.old)["allowed"]] == []


def test_a_refusal_names_field_value_and_what_would_be_right() -> None:
    status = verdict("CREATE", BAD)["status"]
    assert (status["code"], status["reason"]) == (422, "Invalid")
    assert status["message"] == "inference.adapters[0].strength must be a finite number, got 'NaN'"
    assert status["details"]["name"] == "demo"


@pytest.mark.parametrize("operation", ["DELETE", "CONNECT", ""])
def test_nothing_but_writing_is_judged(operation: str) -> None:
    assert verdict(operation, None, BAD) == {"uid": "u-1", "allowed": True}


def test_an_object_that_goes_may_lose_its_finalizers() -> None:
    going = {**BAD, "metadata": {"name": "demo", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
    assert verdict("UPDATE", going, workspace_document())["allowed"]


def test_what_an_upgrade_made_wrong_can_still_be_edited() -> None:
    finalizer = {**BAD, "metadata": {"name": "demo", "finalizers": ["kaito.sh/nodes"]}}
    more = {**BAD, "resource": {"count": 2}}
    assert verdict("UPDATE", finalizer, BAD)["allowed"]
    assert verdict("UPDATE", more, BAD)["allowed"]


def test_a_preset_that_is_gone_locks_nobody_out_and_no_new_one_is_taken() -> None:
    gone = workspace_document(inference={"preset": {"name": "gone"}})
    refused = verdict("CREATE", gone)
    assert "falcon-7b" in refused["status"]["message"], "the known names are listed"
    assert verdict("UPDATE", {**gone, "resource": {"count": 2}}, gone)["allowed"]
    assert not verdict("UPDATE", gone, workspace_document())["allowed"]


def test_one_part_that_is_wrong_for_what_another_has_become_is_refused() -> None:
    weights = Weights(repository="example/small", revision="c", size_gib=5)
    presets = [
        example_preset(name="small", gpu_memory_gib=10, weights=weights),
        example_preset(name="large", gpu_memory_gib=1000),
    ]
    azure = registry_with(presets, [AzureProvider()])
    resource = {"instanceType": "Standard_NC4as_T4_v3"}
    fits = workspace_document(resource=resource, inference={"preset": {"name": "small"}})
    grown = workspace_document(resource=resource, inference={"preset": {"name": "large"}})
    refused = review_response(review("UPDATE", grown, fits), azure)["response"]
    assert refused["allowed"] is False
    assert refused["status"]["details"]["causes"][0]["field"] == "resource.instanceType"
    relabelled = {**grown, "metadata": {"name": "demo", "labels": {}}}
    assert review_response(review("UPDATE", relabelled, grown), azure)["response"]["allowed"]


def test_plugins_are_asked() -> None:
    shop = workspace_document(metadata={"name": "demo", "namespace": "shop"})
    assert "may not be used in the namespace 'shop'" in verdict("CREATE", shop)["status"]["message"]


def test_strengths_that_kaito_would_refuse_are_warned_of() -> None:
    bold = workspace_document(inference__adapters=[{"source": {"name": "style", "image": "i:1"}, "strength": 1.5}])
    assert verdict("CREATE", bold) == {
        "uid": "u-1",
        "allowed": True,
        "warnings": ["inference.adapters[0].strength is applied as written: 1.5 is outside 0 to 1"],
    }


def test_strengths_are_parsed_once_and_shown_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[object] = []
    parse = strength.parse_strength

    def count(value: object) -> float:
        parsed.append(value)
        return parse(value)

    monkeypatch.setattr(strength, "parse_strength", count)
    adapters = [{"source": {"name": "style", "image": "i:1"}, "strength": "1.23456789"}]
    (warning,) = verdict("CREATE", workspace_document(inference__adapters=adapters))["warnings"]
    assert "as written: 1.23456789 is outside" in warning
    assert parsed == ["1.23456789"]


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "x",
        {},
        {"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": "u"}},
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"},
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": []},
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": 3}},
    ],
    ids=repr,
)
def test_what_is_no_review_is_said_so(body: object) -> None:
    with pytest.raises(MalformedReviewError):
        review_response(body, REGISTRY)


@pytest.mark.parametrize("new", [None, [], "x", {}, {"metadata": []}, {"metadata": None, "inference": 3}], ids=repr)
def test_objects_of_any_shape_get_a_verdict(new: object) -> None:
    assert verdict("CREATE", new)["allowed"] is False
    assert verdict("UPDATE", new, workspace_document())["allowed"] is False
    assert verdict("UPDATE", workspace_document(), new)["allowed"] is True


def test_a_mistake_of_ours_lets_pass_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(document: object) -> Callable[[], None]:
        parse_workspace(document)
        raise ZeroDivisionError

    monkeypatch.setattr(admission, "parse_workspace", broken)
    response = verdict("CREATE", workspace_document())
    assert response["allowed"] is True
    assert "ZeroDivisionError" in response["warnings"][0]
    assert "could not be checked" in caplog.text
