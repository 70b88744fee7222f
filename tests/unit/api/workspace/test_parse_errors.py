"""What users get wrong in a Workspace: one message for each fault, with the field's path and its value."""

import datetime
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from kaito_core.api import parse_workspace
from kaito_core.api.workspace.formats import WORKSPACE_NAME
from kaito_core.errors import InvalidWorkspaceError

Make = Callable[..., dict[str, Any]]


def adapter(**changes: Any) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {"source": {"name": "style", "image": "registry.example/style:1"}, **changes}
    return [entry]


def source(**fields: Any) -> list[dict[str, Any]]:
    return [{"source": {"name": "style", **fields}}]


def faults(bad: object) -> list[str]:
    with pytest.raises(InvalidWorkspaceError) as caught:
        parse_workspace(bad)
    return [str(error) for error in caught.value.errors]


A0 = "inference.adapters[0]"
NO_NUMBER = "must be a finite number, got"
TOO_LARGE = "must be between -10 and 10, got"
NAME_RULE = (
    "must be lower-case letters, digits and '-', begin and end with a letter or digit and have at most 55 characters"
)

BAD: dict[str, tuple[dict[str, Any], str]] = {
    "strength NaN": ({"inference__adapters": adapter(strength=float("nan"))}, f"{A0}.strength {NO_NUMBER} nan"),
    "strength 'NaN'": ({"inference__adapters": adapter(strength="NaN")}, f"{A0}.strength {NO_NUMBER} 'NaN'"),
    "strength inf": ({"inference__adapters": adapter(strength=float("inf"))}, f"{A0}.strength {NO_NUMBER} inf"),
    "strength '-inf'": ({"inference__adapters": adapter(strength="-inf")}, f"{A0}.strength {NO_NUMBER} '-inf'"),
    "strength abc": ({"inference__adapters": adapter(strength="abc")}, f"{A0}.strength {NO_NUMBER} 'abc'"),
    "strength hex": ({"inference__adapters": adapter(strength="0x1p-2")}, f"{A0}.strength {NO_NUMBER} '0x1p-2'"),
    "strength empty": ({"inference__adapters": adapter(strength="")}, f"{A0}.strength {NO_NUMBER} ''"),
    "strength newline": ({"inference__adapters": adapter(strength="1\n")}, f"{A0}.strength {NO_NUMBER} '1\\n'"),
    "strength underscore": ({"inference__adapters": adapter(strength="1_0")}, f"{A0}.strength {NO_NUMBER} '1_0'"),
    "strength arabic digit": ({"inference__adapters": adapter(strength="١")}, f"{A0}.strength {NO_NUMBER} '١'"),
    "strength 11": ({"inference__adapters": adapter(strength=11)}, f"{A0}.strength {TOO_LARGE} 11"),
    "strength '-10.5'": ({"inference__adapters": adapter(strength="-10.5")}, f"{A0}.strength {TOO_LARGE} '-10.5'"),
    "strength 1e999": ({"inference__adapters": adapter(strength="1e999")}, f"{A0}.strength {NO_NUMBER} '1e999'"),
    "strength of 6000 digits": (
        {"inference__adapters": adapter(strength=16**5000)},
        f"{A0}.strength {TOO_LARGE} a number of thousands of digits",
    ),
    "strength true": (
        {"inference__adapters": adapter(strength=True)},
        f"{A0}.strength must be a number or a string with a number, got True",
    ),
    "strength left blank": (
        {"inference__adapters": adapter(strength=None)},
        f"{A0}.strength must be a number or a string with a number, got nothing",
    ),
    "strength list": (
        {"inference__adapters": adapter(strength=[1])},
        f"{A0}.strength must be a number or a string with a number, got a list",
    ),
    "neither": (
        {"inference": {}},
        "inference must have a preset or a template, got neither",
    ),
    "both": (
        {"inference__template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}},
        "inference must have a preset or a template, got both",
    ),
    "adapters beside a template": (
        {"inference__preset": ..., "inference__template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}},
        "inference must have no adapters and no blends beside a template: only presets apply adapters",
    ),
    "template without containers": (
        {"inference": {"template": {"spec": {}}}},
        "inference.template must have at least one container in spec.containers",
    ),
    "template with a list for metadata": (
        {"inference": {"template": {"metadata": [], "spec": {"containers": [{}]}}}},
        "inference.template must have a mapping in metadata, got a list",
    ),
    "template with text for env": (
        {"inference": {"template": {"spec": {"containers": [{"env": "A=1"}]}}}},
        "inference.template must have a list in spec.containers[0].env, got 'A=1'",
    ),
    "template with a date": (
        {"inference": {"template": {"metadata": {"annotations": {"on": datetime.date(2024, 1, 1)}}}}},
        "inference.template must be JSON data, got datetime.date(2024, 1, 1) at metadata.annotations.on; "
        "put it in quotes",
    ),
    "template with a number for a key": (
        {"inference": {"template": {"metadata": {"labels": {8080: "x"}}}}},
        "inference.template must have strings for keys, got 8080 at metadata.labels; put it in quotes",
    ),
    "template as text": ({"inference": {"template": "x"}}, "inference.template must be a mapping, got 'x'"),
    "preset without name": ({"inference__preset": {}}, "inference.preset.name is required"),
    "preset as text": ({"inference__preset": "falcon-7b"}, "inference.preset must be a mapping, got 'falcon-7b'"),
    "access mode": (
        {"inference__preset__accessMode": "secret"},
        "inference.preset.accessMode must be 'public' or 'private', got 'secret'",
    ),
    "duplicate adapter": (
        {"inference__adapters": adapter() + adapter()},
        "inference.adapters[1].source.name must be unique, 'style' is also inference.adapters[0].source.name",
    ),
    "adapter named like the preset": (
        {"inference__adapters": [{"source": {"name": "falcon-7b", "image": "a"}}]},
        f"{A0}.source.name must be unique, 'falcon-7b' is also inference.preset.name",
    ),
    "blend named like an adapter": (
        {"inference__blends": [{"name": "style", "strengths": {"style": 1}}]},
        "inference.blends[0].name must be unique, 'style' is also inference.adapters[0].source.name",
    ),
    "adapter named base": (
        {"inference__adapters": [{"source": {"name": "base", "image": "a"}}]},
        f"{A0}.source.name must not be 'base', which is the model id of the raw model",
    ),
    "adapter name in capitals": (
        {"inference__adapters": [{"source": {"name": "Style", "image": "a"}}]},
        f"{A0}.source.name {NAME_RULE}, got 'Style'",
    ),
    "adapter name of a path": (
        {"inference__adapters": [{"source": {"name": "../x", "image": "a"}}]},
        f"{A0}.source.name {NAME_RULE}, got '../x'",
    ),
    "adapter name empty": (
        {"inference__adapters": [{"source": {"name": "", "image": "a"}}]},
        f"{A0}.source.name {NAME_RULE}, got ''",
    ),
    "adapter name too long": (
        {"inference__adapters": [{"source": {"name": "a" * 56, "image": "a"}}]},
        f"{A0}.source.name {NAME_RULE}, got '{'a' * 56}'",
    ),
    "adapter name missing": (
        {"inference__adapters": [{"source": {"image": "a"}}]},
        f"{A0}.source.name is required",
    ),
    "adapter without source": ({"inference__adapters": [{"strength": 1}]}, f"{A0}.source is required"),
    "adapter null": ({"inference__adapters": [None]}, f"{A0} must be a mapping, got nothing"),
    "no source given": (
        {"inference__adapters": source()},
        f"{A0}.source must have exactly one of image, urls, uri and volumeSource, got none",
    ),
    "two sources given": (
        {"inference__adapters": source(image="a", uri="hf://a/b")},
        f"{A0}.source must have exactly one of image, urls, uri and volumeSource, got image and uri",
    ),
    "uri without scheme": (
        {"inference__adapters": source(uri="models/style")},
        f"{A0}.source.uri must be a uri of the form scheme://..., at most 2048 characters, got 'models/style'",
    ),
    "url with a blank": (
        {"inference__adapters": source(urls=["https://a.example/x y"])},
        f"{A0}.source.urls[0] must be a URL without blanks, at most 2048 characters, got 'https://a.example/x y'",
    ),
    "url as text": (
        {"inference__adapters": source(urls="https://a.example/x")},
        f"{A0}.source.urls must be a list, got 'https://a.example/x'",
    ),
    "digest": (
        {"inference__adapters": adapter(digest="sha256:abc")},
        f"{A0}.digest must match pattern '^sha256:[0-9a-f]{{64}}$', got 'sha256:abc'",
    ),
    "eleven adapters": (
        {"inference__adapters": [{"source": {"name": f"a{i}", "image": "a"}} for i in range(11)]},
        "inference.adapters must have at most 10 entries, got 11",
    ),
    "blend of an unknown adapter": (
        {"inference__blends": [{"name": "mix", "strengths": {"no-such": 1}}]},
        "inference.blends[0].strengths[no-such] must name an adapter of this Workspace (known: style)",
    ),
    "blend with a bad strength": (
        {"inference__blends": [{"name": "mix", "strengths": {"style": "much"}}]},
        "inference.blends[0].strengths.style must be a finite number, got 'much'",
    ),
    "count negative": ({"resource__count": -1}, "resource.count must be greater than or equal to 0, got -1"),
    "count as text": ({"resource__count": "2"}, "resource.count must be a whole number, got '2'"),
    "count true": ({"resource__count": True}, "resource.count must be a whole number, got True"),
    "preferred node as text": (
        {"resource__preferredNodes": "node-1"},
        "resource.preferredNodes must be a list, got 'node-1'",
    ),
    "label that is a number": (
        {"resource__labelSelector__matchLabels": {"kaito.sh/gpus": 8}},
        "resource.labelSelector.matchLabels[kaito.sh/gpus] must be a string, got 8",
    ),
    "label key that is a number": (
        {"resource__labelSelector__matchLabels": {8: "x"}},
        "resource.labelSelector.matchLabels[8] has a key that must be a string, got 8",
    ),
    "In without values": (
        {"resource__labelSelector__matchExpressions": [{"key": "a", "operator": "In"}]},
        "resource.labelSelector.matchExpressions[0] must have values for the operator In",
    ),
    "Exists with values": (
        {"resource__labelSelector__matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
        "resource.labelSelector.matchExpressions[0] must have no values for the operator Exists",
    ),
    "misspelt field": (
        {"inference__adaptors": []},
        "inference.adaptors is not a field of a Workspace; check the spelling or remove it",
    ),
    "field in Python's spelling": (
        {"resource__instance_type": "x"},
        "resource.instance_type is not a field of a Workspace; check the spelling or remove it",
    ),
    "spec": (
        {"spec": {"inference": {}, "resource": {}}},
        "spec must hold nothing but replicas: resource and inference stand beside metadata, not under spec; move "
        "spec.inference and spec.resource there",
    ),
    "spec with a word": (
        {"spec": {"nodes": 1}},
        "spec must hold nothing but replicas, got nodes; check the spelling or remove it",
    ),
    "spec as text": ({"spec": "x"}, "spec must be a mapping, got 'x'"),
    "a field that is no string": ({}, "[1] is not a field of a Workspace: names are strings"),
    "tuning": ({"tuning": {}}, "tuning is not supported: this operator serves models"),
    "no name": ({"metadata": {}}, "metadata.name is required"),
    "name in capitals": (
        {"metadata__name": "Demo"},
        f"metadata.name must be {WORKSPACE_NAME.rule}, got 'Demo'",
    ),
    "name too long": (
        {"metadata__name": "a" * 53},
        f"metadata.name must be {WORKSPACE_NAME.rule}, got '{'a' * 53}'",
    ),
    "wrong group": (
        {"apiVersion": "kaito.sh/v2"},
        "apiVersion and kind must be kaito.sh/v1alpha1 or kaito.sh/v1beta1 and Workspace, got 'kaito.sh/v2' and "
        "'Workspace'",
    ),
    "apiVersion as list": (
        {"apiVersion": []},
        "apiVersion and kind must be kaito.sh/v1alpha1 or kaito.sh/v1beta1 and Workspace, got a list and 'Workspace'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_one_fault_gives_one_message_with_path_and_value(name: str, document: Make) -> None:
    changes, message = BAD[name]
    bad: dict[Any, Any] = document(**changes)
    if name == "a field that is no string":
        bad[1] = 2
    assert faults(bad) == [message]


@pytest.mark.parametrize(("bad", "got"), [(None, "nothing"), ([], "a list"), ("x", "'x'"), (3, "3")])
def test_a_document_that_is_not_a_mapping(bad: object, got: str) -> None:
    assert faults(bad) == [f"a Workspace must be a mapping, got {got}"]


def test_all_faults_are_reported_together(document: Make) -> None:
    bad = document(resource__count=-1, inference__adapters=adapter(strength="NaN", digest="x"), metadata__name="X")
    assert len(faults(bad)) == 4


def test_long_values_are_cut(document: Make) -> None:
    (message,) = faults(document(inference__adapters=adapter(strength="9" * 10_000)))
    assert len(message) < 200


def test_words_of_the_user_are_never_rewritten(document: Make) -> None:
    (message,) = faults(document(resource__count="input should be a valid tuple"))
    assert message == "resource.count must be a whole number, got 'input should be a valid tuple'"


def test_endless_yaml_is_refused(document: Make) -> None:
    endless = yaml.safe_load("&x {spec: {containers: [{name: a}]}, more: *x}")
    (message,) = faults(document(inference={"template": endless}))
    assert message == "inference.template must have at most 100000 values, 100 levels deep"


def test_yaml_that_multiplies_is_refused(document: Make) -> None:
    lines = ["a0: &a0 [x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9))]
    (message,) = faults(document(inference__adapters=source(volumeSource=yaml.safe_load("\n".join(lines)))))
    assert message.startswith(f"{A0}.source.volumeSource must have at most 100000 values")
