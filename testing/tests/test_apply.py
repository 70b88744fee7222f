"""Server-side apply: ownership, conflicts, removal, lists by key, and silence where nothing changes."""

from __future__ import annotations

from typing import Any

import pytest

from kaito_testing.kube.errors import ApiError
from kaito_testing.kube.objects.fields import dotted

Object = dict[str, Any]


def cm(name: str = "a", **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def thing(**spec: Any) -> Object:
    return {"apiVersion": "test.example/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec}


def deployment(*containers: Object) -> Object:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": list(containers)}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


def test_the_same_apply_again_changes_nothing_not_even_the_resource_version(desk: Any) -> None:
    manifest = deployment({"name": "c", "image": "x", "ports": [{"containerPort": 5000}]})
    first = desk.apply(manifest)
    assert desk.apply(manifest) == first
    assert desk.apply(manifest, force=True)["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_a_field_left_out_by_its_only_owner_goes(desk: Any) -> None:
    desk.apply(cm(k="1", other="2"))
    assert desk.apply(cm(k="1"))["data"] == {"k": "1"}


def test_a_map_that_loses_its_last_field_goes_with_it(desk: Any) -> None:
    desk.apply(cm(k="1"))
    assert "data" not in desk.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}})


def test_a_field_with_two_owners_stays_until_both_leave_it_out(desk: Any) -> None:
    desk.apply(cm(k="1"), "one")
    desk.apply(cm(k="1"), "two")
    assert desk.apply(cm(), "one")["data"] == {"k": "1"}
    assert not desk.apply(cm(), "two").get("data")


def test_another_managers_value_is_a_conflict_that_names_manager_and_field(desk: Any) -> None:
    desk.apply(cm(k="1"), "one")
    with pytest.raises(ApiError) as caught:
        desk.apply(cm(k="2"), "two")
    assert caught.value.code == 409
    assert caught.value.details == {
        "causes": [{"field": ".data.k", "message": 'conflict with "one"', "reason": "FieldManagerConflict"}]
    }
    assert desk.get(cm())["data"] == {"k": "1"}


def test_force_takes_the_field_and_its_ownership(desk: Any) -> None:
    desk.apply(cm(k="1"), "one")
    assert desk.apply(cm(k="2"), "two", force=True)["data"] == {"k": "2"}
    with pytest.raises(ApiError):
        desk.apply(cm(k="1"), "one")


def test_a_plain_update_owns_what_it_changed(desk: Any) -> None:
    desk.apply(cm(k="1", j="1"))
    desk.patch(cm(), lambda obj: {**obj, "data": {**obj["data"], "k": "9"}})
    with pytest.raises(ApiError) as caught:
        desk.apply(cm(k="1", j="1"))
    assert 'conflict with "patcher": .data.k' in caught.value.message
    assert desk.apply(cm(k="9", j="2"))["data"] == {"k": "9", "j": "2"}


def test_a_changed_field_changes_its_owner(desk: Any) -> None:
    desk.apply(cm(k="1", j="1"))
    changed = desk.patch(cm(), lambda obj: {**obj, "data": {**obj["data"], "k": "9"}})
    owned = {entry["manager"]: entry["fieldsV1"]["f:data"] for entry in changed["metadata"]["managedFields"]}
    assert owned == {"kaito": {"f:j": {}}, "patcher": {"f:k": {}}}


def test_fields_that_others_set_survive_an_apply(desk: Any) -> None:
    desk.apply(cm(k="1"))
    desk.patch(cm(), lambda obj: {**obj, "metadata": {**obj["metadata"], "annotations": {"x": "y"}}})
    assert desk.apply(cm(k="2"))["metadata"]["annotations"] == {"x": "y"}


def test_containers_merge_by_name_and_an_owned_one_left_out_goes(desk: Any) -> None:
    main, side = {"name": "main", "image": "x"}, {"name": "side", "image": "y"}
    desk.apply(deployment(main, side))

    def with_policy(obj: Object) -> Object:
        obj["spec"]["template"]["spec"]["containers"][0]["command"] = ["run"]
        return obj

    desk.patch(deployment(), with_policy)
    containers = desk.apply(deployment(main))["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in containers] == ["main"]
    assert containers[0]["command"] == ["run"]


def test_an_item_that_another_manager_changed_stays_with_its_key(desk: Any) -> None:
    main, side = {"name": "main", "image": "x"}, {"name": "side", "image": "y"}
    desk.apply(deployment(main, side))

    def with_command(obj: Object) -> Object:
        obj["spec"]["template"]["spec"]["containers"][1]["command"] = ["run"]
        return obj

    desk.patch(deployment(), with_command)
    with pytest.raises(ApiError) as caught:  # what is left of it has no image, and that is refused
        desk.apply(deployment(main))
    assert caught.value.details is not None
    assert [cause["field"] for cause in caught.value.details["causes"]] == ["spec.template.spec.containers[1].image"]


def test_the_applied_order_of_containers_counts(desk: Any) -> None:
    one, two = {"name": "one", "image": "x"}, {"name": "two", "image": "x"}
    desk.apply(deployment(one, two))
    containers = desk.apply(deployment(two, one))["spec"]["template"]["spec"]["containers"]
    assert [container["name"] for container in containers] == ["two", "one"]


def test_lists_of_custom_resources_merge_as_their_schema_says(things: Any) -> None:
    things.apply(thing(parts=[{"name": "p", "value": "x"}], atoms=["a", "b"]), "one")
    merged = things.apply(thing(parts=[{"name": "q"}]), "two")
    assert merged["spec"]["parts"] == [{"name": "p", "value": "x"}, {"name": "q"}]
    with pytest.raises(ApiError) as caught:
        things.apply(thing(atoms=["c"]), "two")
    assert 'conflict with "one": .spec.atoms' in caught.value.message


def test_status_is_applied_through_its_subresource_alone(things: Any) -> None:
    status = {**thing(), "status": {"state": "Ready"}}
    assert "status" not in things.apply(status)
    applied = things.apply({**status, "spec": {"size": 7}}, subresource="status")
    assert applied["status"] == {"state": "Ready"}
    assert applied["spec"] == {"size": 1}
    assert things.apply(thing(), "kaito")["status"] == {"state": "Ready"}


def test_an_unknown_field_of_a_custom_resource_cannot_be_applied(things: Any) -> None:
    with pytest.raises(ApiError, match=r"\.spec\.typo: field not declared in schema"):
        things.apply(thing(typo=1))


def test_a_stale_resource_version_in_an_apply_is_a_conflict(desk: Any) -> None:
    stale = desk.apply(cm(k="1"))["metadata"]["resourceVersion"]
    desk.apply(cm(k="2"))
    with pytest.raises(ApiError, match="the object has been modified"):
        desk.apply({**cm(k="3"), "metadata": {"name": "a", "resourceVersion": stale}})


def test_a_dry_run_answers_and_writes_nothing(desk: Any) -> None:
    desk.apply(cm(k="1"))
    before = desk.store.revision
    assert desk.apply(cm(k="2"), dry_run=True)["data"] == {"k": "2"}
    assert desk.store.revision == before
    assert desk.get(cm())["data"] == {"k": "1"}


def test_managed_fields_are_written_as_the_api_writes_them(desk: Any) -> None:
    entry = desk.apply(deployment({"name": "c", "image": "x"}))["metadata"]["managedFields"][0]
    assert (entry["manager"], entry["operation"], entry["apiVersion"]) == ("kaito", "Apply", "apps/v1")
    containers = entry["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert containers == {'k:{"name":"c"}': {".": {}, "f:image": {}, "f:name": {}}}


def test_paths_are_shown_as_people_write_them() -> None:
    path = ("f:spec", "f:containers", 'k:{"name":"c"}', "f:image")
    assert dotted(path) == '.spec.containers[name="c"].image'
