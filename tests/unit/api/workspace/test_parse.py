"""Parsing a Workspace: what users write, and manifests that were written for upstream."""

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from kaito_core.api import parse_workspace

Make = Callable[..., dict[str, Any]]

A0 = "inference.adapters[0]"


def adapter(**changes: Any) -> list[dict[str, Any]]:
    entry: dict[str, Any] = {"source": {"name": "style", "image": "registry.example/style:1"}, **changes}
    return [entry]


def source(**fields: Any) -> list[dict[str, Any]]:
    return [{"source": {"name": "style", **fields}}]


@pytest.mark.parametrize(
    ("written", "number"),
    [("0.2", 0.2), (1, 1.0), ("-1", -1.0), ("1e-3", 1e-3), ("+.5", 0.5), (-10, -10.0), ("10.0", 10.0), (".5", 0.5)],
)
def test_strengths_in_any_decimal_notation(written: object, number: float, document: Make) -> None:
    workspace = parse_workspace(document(inference__adapters=adapter(strength=written)))
    assert workspace.inference.adapters[0].strength == number


def test_strength_is_one_by_default_and_zero_has_no_sign(document: Make) -> None:
    parsed = parse_workspace(document(inference__adapters=adapter())).inference.adapters[0].strength
    zero = parse_workspace(document(inference__adapters=adapter(strength="-0"))).inference.adapters[0].strength
    assert (parsed, str(zero)) == (1.0, "0.0")


def test_blank_fields_are_absent() -> None:
    text = """
    apiVersion: kaito.sh/v1alpha1
    kind: Workspace
    metadata: {name: demo, labels: , annotations: , namespace: }
    resource: {count: , instanceType: , labelSelector: , preferredNodes: }
    inference:
      preset: {name: falcon-7b, accessMode: , presetOptions: }
      template:
      adapters:
      blends:
      config:
    tuning:
    status:
    """
    workspace = parse_workspace(yaml.safe_load(text))
    assert workspace == parse_workspace(
        {
            "apiVersion": "kaito.sh/v1alpha1",
            "kind": "Workspace",
            "metadata": {"name": "demo"},
            "inference": {"preset": {"name": "falcon-7b"}},
        }
    )
    assert (workspace.namespace, workspace.resource.count, workspace.inference.adapters) == ("default", 1, ())


def test_blank_fields_of_a_template_are_absent(document: Make) -> None:
    template = {
        "metadata": None,
        "spec": {"affinity": None, "containers": [{"name": "a", "env": None, "args": [None]}]},
    }
    workspace = parse_workspace(document(inference={"template": template}))
    assert workspace.inference.template == {"spec": {"containers": [{"name": "a", "args": [None]}]}}


UPSTREAM = {
    "v1alpha1 with adapters": """
        apiVersion: kaito.sh/v1alpha1
        kind: Workspace
        metadata: {name: workspace-falcon-7b-adapter}
        resource:
          instanceType: "Standard_NC12s_v3"
          labelSelector: {matchLabels: {apps: falcon-7b-adapter}}
        inference:
          preset: {name: "falcon-7b"}
          adapters:
          - source: {name: "falcon-7b-adapter", image: "registry.example/adapter:0.0.1", imagePullSecrets: [pull]}
            strength: "0.2"
    """,
    "v1alpha1 private preset": """
        apiVersion: kaito.sh/v1alpha1
        kind: Workspace
        metadata: {name: workspace-llama-2-7b, annotations: {kaito.sh/enablelb: "True"}}
        resource:
          count: 2
          instanceType: "Standard_NC12s_v3"
          preferredNodes: [node-1, node-2]
          labelSelector:
            matchExpressions: [{key: apps, operator: In, values: [llama-2-7b]}]
        inference:
          preset:
            name: llama-2-7b
            accessMode: private
            presetOptions: {image: "registry.example/llama:1", imagePullSecrets: [pull]}
    """,
    "v1beta1 with access secret": """
        apiVersion: kaito.sh/v1beta1
        kind: Workspace
        metadata: {name: workspace-llama, namespace: models, uid: abc, generation: 3, resourceVersion: "7",
                   creationTimestamp: "2024-01-01T00:00:00Z", managedFields: [{manager: kubectl}]}
        resource: {labelSelector: {matchLabels: {apps: llama}}}
        inference:
          preset: {name: llama-3.1-8b-instruct, presetOptions: {modelAccessSecret: hf-token}}
          config: my-config-map
        status:
          conditions: [{type: ResourceReady, status: "True"}]
          workerNodes: [node-1]
    """,
    "v1alpha1 template": """
        apiVersion: kaito.sh/v1alpha1
        kind: Workspace
        metadata: {name: workspace-custom}
        resource: {labelSelector: {matchLabels: {apps: custom}}}
        inference:
          template:
            spec:
              containers: [{name: main, image: "registry.example/llm:1", command: [serve]}]
    """,
    "v1alpha1 adapter volume": """
        apiVersion: kaito.sh/v1alpha1
        kind: Workspace
        metadata: {name: workspace-volume}
        resource: {labelSelector: {}}
        inference:
          preset: {name: falcon-7b}
          adapters: [{source: {name: a, volumeSource: {persistentVolumeClaim: {claimName: adapters}}}, strength: "1.0"}]
    """,
}


@pytest.mark.parametrize("name", UPSTREAM)
def test_manifests_for_upstream_parse_unchanged(name: str) -> None:
    written = yaml.safe_load(UPSTREAM[name])
    workspace = parse_workspace(written)
    assert workspace.name == written["metadata"]["name"]
    assert workspace.resource.instance_type == written["resource"].get("instanceType", "")
    assert len(workspace.inference.adapters) == len(written["inference"].get("adapters", []))


@pytest.mark.parametrize(
    ("fields", "scheme", "location", "field"),
    [
        ({"image": "r.example/a:1"}, "image", "r.example/a:1", f"{A0}.source.image"),
        ({"uri": "HF://o/n"}, "hf", "HF://o/n", f"{A0}.source.uri"),
        ({"uri": "file:adapters/a"}, "file", "file:adapters/a", f"{A0}.source.uri"),
        ({"urls": ["https://a/1", "https://a/2"]}, "https", "https://a/1 https://a/2", f"{A0}.source.urls[0]"),
        ({"volumeSource": {"emptyDir": {}}}, "volume", "", f"{A0}.source.volumeSource"),
    ],
)
def test_references(fields: dict[str, Any], scheme: str, location: str, field: str, document: Make) -> None:
    ref = parse_workspace(document(inference__adapters=source(**fields))).inference.adapters[0].ref(A0)
    assert (ref.name, ref.scheme, ref.location, ref.field) == ("style", scheme, location, field)
    assert ref.folder == f"style/{ref.revision}"


def test_another_reference_is_another_revision(document: Make) -> None:
    def revision(**changes: Any) -> str:
        return parse_workspace(document(**changes)).inference.adapters[0].ref(A0).revision

    digest = "sha256:" + "0" * 64
    revisions = [
        revision(),
        revision(inference__adapters=adapter(digest=digest)),
        revision(inference__adapters=source(image="registry.example/style:2")),
        revision(inference__adapters=source(volumeSource={"emptyDir": {}})),
        revision(inference__adapters=[{"source": {"name": "other", "image": "registry.example/style:1"}}]),
    ]
    assert len(set(revisions)) == len(revisions)
    assert revision(inference__adapters=adapter(strength=3)) == revision()
