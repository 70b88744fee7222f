"""The options of `inference.config`: what is read of a ConfigMap, what is named, and where each option goes."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from kaito_core.api import KubeObject, parse_workspace
from kaito_core.api.serving import SERVING_KEY, ServingConfig
from kaito_core.errors import InvalidConfigError
from kaito_core.reconcile.desired import Desired, desired
from kaito_core.reconcile.options.serving import CONFIG_KEY, OPTIONS, ServingOptions, read_options
from kaito_core.reconcile.options.unused import unused
from kaito_core.reconcile.plan import plan, plan_failure
from kaito_core.reconcile.resolve import resolve

Make = Callable[..., Any]


def read(text: str, longest: int = 8192) -> ServingOptions:
    return read_options("limits", {CONFIG_KEY: text}, longest)


def test_our_options_are_read() -> None:
    text = """
kaito:
  context-length: 4096
  dtype: float16
  quantization: bitsandbytes-8bit
  adapter-memory: 2Gi
  max-adapter-rank: 32
  cache-gib: 2.5
  batch-requests: 8
  step-tokens: 64
  reuse-prefixes: true
  max-waiting: 0
  request-seconds: 30
  api-key-secret: keys
  key-requests-per-minute: 10
  key-tokens-per-minute: 1000
"""
    options = read(text)
    assert set(options.values) == {option.name for option in OPTIONS}, "an option that this test does not set"
    assert options.arguments == (
        *("--cache-gib", "2.5", "--batch-requests", "8", "--step-tokens", "64", "--reuse-prefixes"),
        *("--max-waiting", "0", "--key-requests-per-minute", "10", "--key-tokens-per-minute", "1000"),
    )
    assert options.of("model") == {
        "context_length": 4096,
        "dtype": "float16",
        "quantization": "bitsandbytes-8bit",
        "adapter_memory": "2Gi",
        "max_adapter_rank": 32,
    }
    assert options.of("limit") == {"request_seconds": 30.0}
    assert options.api_key_secret == "keys"
    assert options.ignored == ()


def test_upstreams_keys_with_a_meaning_are_read_and_others_named() -> None:
    options = read(
        """
vllm: {max-model-len: 4096, max_num_seqs: 16, enable-prefix-caching: false, dtype: half, swap-space: 4, api-key: x}
transformers: {batch: 1}
max_probe_steps: 6
"""
    )
    assert options.values == {
        "context-length": 4096,
        "batch-requests": 16,
        "reuse-prefixes": False,
        "dtype": "float16",
    }
    assert options.arguments == ("--batch-requests", "16")
    assert sorted(options.ignored) == ["max_probe_steps", "transformers", "vllm.api-key", "vllm.swap-space"]


def test_ours_counts_before_upstreams_in_any_order() -> None:
    for sections in ("kaito: {dtype: float32}\nvllm: {dtype: half}", "vllm: {dtype: half}\nkaito: {dtype: float32}"):
        assert read(sections).values == {"dtype": "float32"}


@pytest.mark.parametrize(
    "text", ["", "# nothing", "{}", "kaito:", "vllm: {max-model-len: auto}", "kaito: {dtype: null}"]
)
def test_nothing_said_is_nothing_changed(text: str) -> None:
    options = read(text)
    assert (options.values, options.arguments, options.revision) == ({}, (), "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is no YAML: "),
        ("- a", "must be a mapping of sections, got a list"),
        ("kaito: 5", "kaito must be a mapping, got 5"),
        ("kaito: {context: 5}", "kaito.context is not an option; did you mean context-length?"),
        ("kaito: {1: 5}", "kaito.1 is not an option; known: adapter-memory, api-key-secret, "),
        ("kaito: {context-length: 9000}", "must be at most 8192, the preset's context length, got 9000"),
        ("vllm: {max-model-len: 9000}", "vllm.max-model-len must be at most 8192, the preset's context length"),
        ("kaito: {context-length: 0}", "kaito.context-length must be a whole number, 1 or more, got 0"),
        ("kaito: {context-length: 1.5}", "kaito.context-length must be a whole number, got 1.5"),
        ("kaito: {context-length: true}", "kaito.context-length must be a whole number, got True"),
        ("kaito: {cache-gib: .nan}", "kaito.cache-gib must be a number, got nan"),
        ("kaito: {cache-gib: 20Gi}", "kaito.cache-gib must be a number, got '20Gi'"),
        ("kaito: {adapter-memory: 2}", "kaito.adapter-memory must be a size such as 2Gi or 500Mi, got 2"),
        ("kaito: {reuse-prefixes: 1}", "kaito.reuse-prefixes must be true or false, got 1"),
        ("kaito: {dtype: int4}", "kaito.dtype must be one of auto, bfloat16, float16, float32, got 'int4'"),
        ("kaito: {dtype: [a]}", "kaito.dtype must be one of auto, bfloat16, float16, float32, got a list"),
        ("kaito: {key-tokens-per-minute: 5}", "kaito.key-tokens-per-minute needs kaito.api-key-secret"),
        ("kaito: {api-key-secret: A B}", "kaito.api-key-secret must be the name of an object"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_key(text: str, words: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        read(text)
    message = str(caught.value)
    assert message.startswith(f"inference.config names ConfigMap 'limits', whose key {CONFIG_KEY}")
    assert words in message


def test_all_faults_are_named_at_once_and_a_missing_key_with_those_there_are() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        read("kaito: {dtype: x, cache-gib: 0}")
    assert len(caught.value.errors) == 2
    with pytest.raises(InvalidConfigError, match=r"key inference_config.yaml is missing \(it has a, b\)"):
        read_options("limits", {"b": "", "a": ""}, 1)


def document(**inference: Any) -> KubeObject:
    return {
        "apiVersion": "kaito.sh/v1beta1",
        "kind": "Workspace",
        "metadata": {"name": "demo", "namespace": "models", "uid": "uid-demo", "generation": 1},
        "inference": {"preset": {"name": "one-gpu"}, "config": "limits", **inference},
    }


def wanted(w: Any, text: str | None) -> Desired:
    config = None if text is None else {CONFIG_KEY: text}
    resolved = resolve(parse_workspace(document()), w.registry, config)
    return desired(resolved, w.nodes, w.settings, w.children.get(("Deployment", "demo")))


def test_each_option_is_in_the_pod_or_in_the_servers_file(world: Make) -> None:
    text = "kaito: {context-length: 1024, cache-gib: 3, request-seconds: 5, api-key-secret: keys}"
    found = wanted(world(), text)
    config = ServingConfig.model_validate_json(found.objects[0]["data"][SERVING_KEY])
    assert config.model.context_length == 1024
    assert config.limits is not None and config.limits.request_seconds == 5
    template = found.workload["spec"]["template"]
    (server,) = template["spec"]["containers"]
    assert server["command"][-5:] == [
        *("--cache-gib", "3"),
        *("--api-key-file", "/etc/kaito/api-key", "--open-status"),
    ]
    assert {"name": "api-key", "secret": {"secretName": "keys"}} in template["spec"]["volumes"]
    plain = wanted(world(), None)
    assert json.loads(plain.objects[0]["data"][SERVING_KEY]).get("limits") is None
    assert "annotations" not in plain.workload["spec"]["template"]["metadata"]


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("kaito: {request-seconds: 60}", False),
        ("kaito: {request-seconds: 5, context-length: 1024}", True),
        ("kaito: {request-seconds: 5, batch-requests: 4}", True),
        ("", False),
    ],
)
def test_a_change_replaces_pods_only_where_a_running_server_cannot_take_it_up(
    world: Make, text: str, replaced: bool
) -> None:
    w = world()
    before, after = wanted(w, "kaito: {request-seconds: 5}"), wanted(w, text)
    assert (before.workload["spec"]["template"] != after.workload["spec"]["template"]) is replaced
    assert before.objects[0] != after.objects[0] or replaced


def test_running_servers_are_told_at_once_of_a_change_without_a_generation(world: Make) -> None:
    w = world()
    w.document = document()

    def step(text: str) -> list[str]:
        planned = plan(wanted(w, text), w.observed(), w.now)
        words = w.actions(planned)
        for action in planned.actions:
            w._do(action)
        w.document["status"] = planned.status
        w.run_pods()
        return list(words)

    for _ in range(3):
        step("kaito: {request-seconds: 5}")
    assert step("kaito: {request-seconds: 5}") == []
    (pod,) = w.pods
    assert step("kaito: {request-seconds: 60}") == ["apply ConfigMap demo-serving", f"annotate {pod}"]
    assert step("kaito: {request-seconds: 60}") == []


def test_what_has_no_effect_is_in_the_status_and_in_one_event(world: Make) -> None:
    w = world()
    planned = plan(wanted(w, "vllm: {swap-space: 4}"), w.observed(), w.now)
    words = "inference.config: vllm.swap-space of ConfigMap 'limits' is not used by this server"
    assert planned.status["unused"] == [words]
    assert [event.message for event in planned.events if event.reason == "NotUsed"] == [words]
    assert planned.wake_after_seconds is not None and planned.wake_after_seconds <= 60


@pytest.mark.parametrize(
    ("annotations", "inference", "words"),
    [
        ({"kaito.sh/runtime": "vllm"}, {}, "metadata.annotations[kaito.sh/runtime] is not used: there is one server"),
        ({"kaito.sh/enablelb": "true"}, {}, "only the value True is, got 'true'"),
        (
            {},
            {"preset": None, "template": {"spec": {"containers": [{"name": "a"}]}}, "config": "limits"},
            "inference.config is not used: the server of a template is not kaito's",
        ),
    ],
)
def test_what_a_document_says_in_vain(annotations: Any, inference: Any, words: str) -> None:
    mine = document(config=None, **inference) if "config" not in inference else document(**inference)
    mine["metadata"]["annotations"] = annotations
    (found,) = unused(parse_workspace(mine), ServingOptions())
    assert words in found


def test_a_wrong_config_map_is_read_again(world: Make) -> None:
    w = world()
    with pytest.raises(InvalidConfigError) as caught:
        wanted(w, "a: [")
    planned = plan_failure(document(), caught.value, w.now)
    status, reason, message = w.condition("WorkspaceSucceeded", planned)
    assert (status, reason) == ("False", "InvalidConfig")
    assert message.endswith("; edit the ConfigMap")
    assert planned.wake_after_seconds == 60
