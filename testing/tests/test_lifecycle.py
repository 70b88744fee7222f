"""Creation to deletion: versions, generation, status, finalizers, owners, namespaces and CRDs."""

from __future__ import annotations

from typing import Any

import pytest

from kaito_testing.kube.errors import ApiError
from kaito_testing.kube.objects import patches
from kaito_testing.kube.objects.options import WriteOptions

Object = dict[str, Any]


def cm(name: str = "a", **meta: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **meta}}


def thing(name: str = "t", version: str = "v1", **spec: Any) -> Object:
    return {"apiVersion": f"test.example/{version}", "kind": "Thing", "metadata": {"name": name}, "spec": spec}


def owned_by(owner: Object, block: bool = True) -> Object:
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"]}
    return reference | {"uid": owner["metadata"]["uid"], "blockOwnerDeletion": block}


def set_meta(**meta: Any) -> Any:
    return lambda obj: {**obj, "metadata": {**obj["metadata"], **meta}}


def test_generation_counts_changes_of_the_desired_state_alone(things: Any) -> None:
    assert things.apply(thing(size=1))["metadata"]["generation"] == 1
    assert things.apply(thing(size=2))["metadata"]["generation"] == 2
    assert things.patch(thing(), set_meta(labels={"a": "b"}))["metadata"]["generation"] == 2
    ready = things.patch(thing(), lambda obj: {**obj, "status": {"state": "Ready"}}, subresource="status")
    assert (ready["status"], ready["metadata"]["generation"]) == ({"state": "Ready"}, 2)


def test_versions_of_one_resource_share_their_objects(things: Any) -> None:
    things.apply(thing(size=3))
    alpha = thing(version="v1alpha1")
    read = things.store.get(things.resource(alpha), "default", "t")
    assert (read["apiVersion"], read["spec"]["size"]) == ("test.example/v1alpha1", 3)
    version = read["metadata"]["resourceVersion"]
    assert things.patch(alpha, lambda obj: obj)["metadata"]["resourceVersion"] == version


def test_finalizers_hold_an_object_until_the_last_one_goes(desk: Any) -> None:
    desk.create(cm(finalizers=["x/one", "x/two"]))
    assert "deletionTimestamp" in desk.delete(cm())["metadata"]
    desk.patch(cm(), set_meta(finalizers=["x/two"]))
    assert desk.get(cm()) is not None
    with pytest.raises(ApiError, match="no new finalizers can be added"):
        desk.patch(cm(), set_meta(finalizers=["x/two", "x/late"]))
    desk.patch(cm(), set_meta(finalizers=[]))
    assert desk.get(cm()) is None


def test_a_deleted_owner_takes_its_dependents_along_in_any_depth(desk: Any) -> None:
    top = desk.create(cm("top"))
    middle = desk.create(cm("middle", ownerReferences=[owned_by(top)]))
    desk.create(cm("leaf", ownerReferences=[owned_by(middle)]))
    desk.create(cm("stranger"))
    desk.delete(cm("top"))
    left = [name for _, name in desk.store.objects(("", "configmaps")) if name != "kube-root-ca.crt"]
    assert left == ["stranger"]


def test_a_dependent_with_another_living_owner_stays(desk: Any) -> None:
    one, two = desk.create(cm("one")), desk.create(cm("two"))
    desk.create(cm("both", ownerReferences=[owned_by(one), owned_by(two)]))
    desk.delete(cm("one"))
    assert [item["name"] for item in desk.get(cm("both"))["metadata"]["ownerReferences"]] == ["two"]
    desk.delete(cm("two"))
    assert desk.get(cm("both")) is None


def test_an_object_whose_owner_never_was_is_collected(desk: Any) -> None:
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ghost", "uid": "no-such-uid"}}
    desk.create(cm("orphan", ownerReferences=[owned_by(owner)]))
    assert desk.get(cm("orphan")) is None


def test_orphans_are_kept_where_the_delete_says_so(desk: Any) -> None:
    owner = desk.create(cm("owner"))
    desk.create(cm("child", ownerReferences=[owned_by(owner)]))
    desk.delete(cm("owner"), propagation="Orphan")
    assert "ownerReferences" not in desk.get(cm("child"))["metadata"]


def test_foreground_deletion_waits_for_blocking_dependents(desk: Any) -> None:
    owner = desk.create(cm("owner"))
    desk.create(cm("child", ownerReferences=[owned_by(owner)], finalizers=["x/hold"]))
    desk.delete(cm("owner"), propagation="Foreground")
    assert desk.get(cm("owner"))["metadata"]["finalizers"] == ["foregroundDeletion"]
    desk.patch(cm("child"), set_meta(finalizers=[]))
    assert desk.get(cm("child")) is None
    assert desk.get(cm("owner")) is None


def test_a_namespace_waits_for_what_is_in_it_and_takes_nothing_new(desk: Any) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}
    desk.create(namespace)
    held = cm("held", namespace="n", finalizers=["x/hold"])
    desk.create(held)
    desk.delete(namespace)
    assert desk.get(namespace)["status"] == {"phase": "Terminating"}
    with pytest.raises(ApiError, match="is being terminated"):
        desk.create(cm("late", namespace="n"))
    desk.patch(held, set_meta(finalizers=[]))
    assert desk.get(namespace) is None


def test_a_crd_takes_its_objects_and_its_resource_along(things: Any) -> None:
    things.apply(thing())
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
    things.delete({**definition, "metadata": {"name": "things.test.example"}})
    assert things.store.objects(("test.example", "things")) == {}
    assert things.store.resource("test.example", "v1", "things") is None


def test_objects_need_a_namespace_that_exists(desk: Any) -> None:
    with pytest.raises(ApiError, match='namespaces "nowhere" not found'):
        desk.create(cm(namespace="nowhere"))


def test_an_update_of_a_custom_resource_needs_a_resource_version(things: Any) -> None:
    things.apply(thing())
    with pytest.raises(ApiError, match="must be specified for an update"):
        things.verbs.update(things.resource(thing()), "default", "t", thing(), WriteOptions())


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({"size": 0}, "spec.size", "FieldValueInvalid"),
        ({"size": 10}, "spec.size", "FieldValueInvalid"),
        ({"size": "1"}, "spec.size", "FieldValueTypeInvalid"),
        ({"size": True}, "spec.size", "FieldValueTypeInvalid"),
        ({"mode": "c"}, "spec.mode", "FieldValueNotSupported"),
        ({"labels": {"x": 1}}, "spec.labels.x", "FieldValueTypeInvalid"),
        ({"parts": [{}]}, "spec.parts[0].name", "FieldValueRequired"),
        ({"parts": [{"name": "a", "value": "A"}]}, "spec.parts[0].value", "FieldValueInvalid"),
        ({"parts": [{"name": "a"}, {"name": "a"}]}, "spec.parts[1]", "FieldValueDuplicate"),
        ({"parts": [{"name": x} for x in "abcd"]}, "spec.parts", "FieldValueTooMany"),
    ],
)
def test_what_breaks_the_schema_is_refused_with_its_field(things: Any, spec: Object, field: str, reason: str) -> None:
    with pytest.raises(ApiError) as caught:
        things.create(thing(**spec))
    assert caught.value.code == 422
    assert caught.value.details is not None
    assert (field, reason) in [(c["field"], c["reason"]) for c in caught.value.details["causes"]]


def test_unknown_fields_are_dropped_and_defaults_filled(things: Any) -> None:
    assert things.create(thing(unknown=1, parts=[{"name": "p", "x": 1}]))["spec"] == {
        "size": 1,
        "parts": [{"name": "p"}],
    }


@pytest.mark.parametrize(
    ("live", "patch", "wanted"),
    [
        ({"l": [{"name": "a"}]}, {"l": []}, {"l": []}),
        (
            {"containers": [{"name": "a", "image": "x"}]},
            {"containers": [{"name": "a", "image": "y"}]},
            {"containers": [{"name": "a", "image": "y"}]},
        ),
        (
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {"containers": [{"name": "a", "$patch": "delete"}]},
            {"containers": [{"name": "b"}]},
        ),
        ({"env": [{"name": "A"}]}, {"env": [{"$patch": "replace"}, {"name": "B"}]}, {"env": [{"name": "B"}]}),
        ({"args": ["a"]}, {"args": ["b"]}, {"args": ["b"]}),
        ({"finalizers": ["a", "b"]}, {"$deleteFromPrimitiveList/finalizers": ["a"]}, {"finalizers": ["b"]}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        (
            {"conditions": [{"type": "A", "status": "True"}]},
            {"conditions": [{"type": "A", "status": "False"}]},
            {"conditions": [{"type": "A", "status": "False"}]},
        ),
    ],
)
def test_strategic_patches_merge_lists_by_key(live: Object, patch: Object, wanted: Object) -> None:
    assert patches.strategic_patch(live, patch) == wanted
