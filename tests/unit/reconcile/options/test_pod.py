"""What pods take along: defaults, the Workspace and plugins, in this order, and who is named where they disagree."""

from typing import Any

import pytest

from kaito_core import hookimpl
from kaito_core.api import PodChange, Workspace, parse_workspace
from kaito_core.api.workspace.pod import PodOptions, merged
from kaito_core.errors import FieldError, InvalidWorkspaceError, PluginFailedError
from kaito_core.plugins import PluginRegistry
from kaito_core.reconcile.resolve import resolve
from kaito_core.settings import Settings
from kaito_testing.registry import example_preset, registry_with


def workspace(name: str = "demo", **pod: Any) -> Workspace:
    return parse_workspace(
        {
            "apiVersion": "kaito.sh/v1beta1",
            "kind": "Workspace",
            "metadata": {"name": name, "namespace": "team", "annotations": {"a": "b"}},
            "inference": {"preset": {"name": "tiny"}, "pod": pod},
        }
    )


class Plugin:
    """A plugin whose hook does what it is given."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    @hookimpl
    def kaito_pod(self, workspace: Workspace, preset: Any, pod: Any) -> Any:
        return self._answer(workspace, preset, pod) if callable(self._answer) else self._answer


def registry(defaults: dict[str, Any] | None = None, /, **answers: Any) -> PluginRegistry:
    settings = Settings(pod_defaults=PodOptions.model_validate(defaults or {}))
    found = registry_with([example_preset(name="tiny")], settings=settings)
    for name, answer in answers.items():
        found.register(Plugin(answer), name)
    return found


def test_the_workspace_counts_before_defaults_field_by_field() -> None:
    defaults = {
        "labels": {"team": "platform", "cost": "1"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "env": [{"name": "HTTPS_PROXY", "value": "http://a"}, {"name": "HF_ENDPOINT", "value": "http://hub"}],
        "volumes": [{"name": "data", "emptyDir": {}}],
        "resources": {"limits": {"cpu": "8", "memory": "64Gi"}},
        "securityContext": {"fsGroup": 1},
        "dnsConfig": {"searches": ["a"]},
        "priorityClassName": "low",
        "imagePullSecrets": ["a"],
    }
    own = workspace(
        labels={"team": "search"},
        tolerations=[{"key": "spot", "operator": "Exists"}, {"key": "gpu", "operator": "Exists"}],
        env=[{"name": "HTTPS_PROXY", "value": "http://b"}],
        volumes=[{"name": "data", "configMap": {"name": "c"}}],
        resources={"limits": {"cpu": "16"}},
        securityContext={"runAsUser": 1000},
        dnsConfig={"searches": ["b"]},
        priorityClassName="high",
        imagePullSecrets=["b"],
    )
    assert resolve(own, registry(defaults)).pod == {
        "labels": {"team": "search", "cost": "1"},
        "tolerations": [{"key": "spot", "operator": "Exists"}, {"key": "gpu", "operator": "Exists"}],
        "env": [{"name": "HTTPS_PROXY", "value": "http://b"}, {"name": "HF_ENDPOINT", "value": "http://hub"}],
        "volumes": [{"name": "data", "configMap": {"name": "c"}}],
        "resources": {"limits": {"cpu": "16", "memory": "64Gi"}},
        "securityContext": {"fsGroup": 1, "runAsUser": 1000},
        "dnsConfig": {"searches": ["b"]},
        "priorityClassName": "high",
        "imagePullSecrets": ["a", "b"],
    }


@pytest.mark.parametrize("name", [n for n in PodChange.model_fields if n not in ("arguments", "sidecars")])
def test_every_field_of_a_workspace_is_a_field_of_defaults_and_of_plugins(name: str) -> None:
    assert name in PodOptions.model_fields


def test_nothing_merged_is_nothing() -> None:
    assert merged([PodOptions(), PodChange()]) == {}


def test_a_plugin_sees_what_there_is_and_has_the_last_word() -> None:
    seen: list[Any] = []

    def answer(workspace: Workspace, preset: Any, pod: Any) -> PodChange:
        seen.append((workspace.name, preset.name, dict(pod)))
        return PodChange(labels={"cost": workspace.namespace}, service_account_name="models", arguments=["--verbose"])

    found = resolve(workspace(labels={"team": "a", "cost": "b"}), registry(mine=answer)).pod
    assert seen == [("demo", "tiny", {"labels": {"team": "a", "cost": "b"}})]
    assert found["labels"] == {"team": "a", "cost": "team"}
    assert (found["serviceAccountName"], found["arguments"]) == ("models", ["--verbose"])


def test_what_plugins_agree_on_is_no_conflict() -> None:
    one = PodChange(labels={"a": "1", "b": "2"}, tolerations=[{"key": "x", "operator": "Exists"}])
    other = PodChange(labels={"a": "1", "c": "3"}, tolerations=[{"key": "y", "operator": "Exists"}])
    found = resolve(workspace(), registry(one=one, other=other)).pod
    assert found["labels"] == {"a": "1", "b": "2", "c": "3"}
    assert sorted(entry["key"] for entry in found["tolerations"]) == ["x", "y"]


@pytest.mark.parametrize(
    ("one", "other", "path"),
    [
        ({"labels": {"a": "1"}}, {"labels": {"a": "2"}}, ".labels.a"),
        ({"priority_class_name": "x"}, {"priority_class_name": "y"}, ".priorityClassName"),
        ({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "A", "value": "2"}]}, ".env[A]"),
        ({"resources": {"limits": {"cpu": 1}}}, {"resources": {"limits": {"cpu": 2}}}, ".resources.limits.cpu"),
        (
            {"sidecars": [{"name": "log", "image": "a"}]},
            {"sidecars": [{"name": "log", "image": "b"}]},
            ".sidecars[log]",
        ),
    ],
)
def test_two_plugins_that_disagree_are_both_named(one: Any, other: Any, path: str) -> None:
    with pytest.raises(PluginFailedError) as caught:
        resolve(workspace(), registry(one=PodChange(**one), other=PodChange(**other)))
    assert caught.value.reason == "PluginConflict"
    assert all(words in str(caught.value) for words in ("'one'", "'other'", f"inference.pod{path} "))


def _leave(*_: Any) -> None:
    raise SystemExit(3)


def _fail(*_: Any) -> None:
    raise ValueError("no idea")


def _edit(workspace: Workspace, *_: Any) -> None:
    workspace.metadata.annotations["a"] = "c"


def _edit_pod(workspace: Workspace, preset: Any, pod: Any) -> None:
    pod["labels"]["a"] = "c"


def _take_our_label(*_: Any) -> PodChange:
    return PodChange(labels={"kaito.sh/workspace": "other"})


def _take_our_flag(*_: Any) -> PodChange:
    return PodChange(arguments=["--port=1"])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (_leave, "SystemExit: 3"),
        (_fail, "ValueError: no idea"),
        (_edit, "arguments of hooks cannot be changed"),
        (_edit_pod, "arguments of hooks cannot be changed"),
        (_take_our_label, "must not have 'kaito.sh/workspace'"),
        (_take_our_flag, "must not have '--port'"),
        ({"labels": {}}, "must return a PodChange or None, got dict"),
    ],
)
def test_a_plugin_that_fails_is_named(answer: Any, words: str) -> None:
    with pytest.raises(PluginFailedError, match="plugin 'mine'") as caught:
        resolve(workspace(labels={"a": "b"}), registry(mine=answer))
    assert words in str(caught.value)


def test_a_plugin_may_object_to_one_workspace_alone() -> None:
    def answer(workspace: Workspace, *_: Any) -> None:
        if workspace.name == "bad":
            raise InvalidWorkspaceError([FieldError("inference.pod.labels", "must have a team")])

    found = registry(mine=answer)
    assert resolve(workspace("good"), found).pod == {}
    with pytest.raises(InvalidWorkspaceError, match=r"inference.pod.labels must have a team \(plugin 'mine'\)"):
        resolve(workspace("bad"), found)


def test_hooks_that_validate_cannot_change_the_workspace_either(caplog: pytest.LogCaptureFixture) -> None:
    class Editor:
        @hookimpl
        def kaito_validate_workspace(self, workspace: Workspace) -> list[FieldError]:
            workspace.metadata.annotations["kaito.sh/strategy"] = "Recreate"
            return []

    found, mine = registry(), workspace()
    found.register(Editor(), "editor")
    resolve(mine, found)
    assert dict(mine.metadata.annotations) == {"a": "b"}
    assert "editor" in caplog.text
