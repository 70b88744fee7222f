"""The CRD's CEL rules: those about two fields at once, or about the change from one Workspace to the next.

`model`, `parse` and `changes` hold the same rules in Python; the table in `kaito_testing.cases.workspaces` is checked
against both. The rules use `has()`: an API server refuses the same rules with optional chaining as too costly.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from kaito_core.api.nodes import GPU_RESOURCES
from kaito_core.api.workspace.formats import LABEL_KEY
from kaito_core.api.workspace.pod_parts import (
    OWN_PATHS,
    RESERVED_LABELS,
    RESERVED_VARIABLE_PREFIX,
    RESERVED_VARIABLES,
    RESERVED_VOLUME_PREFIX,
    RESERVED_VOLUMES,
    SHARED_PATH,
)
from kaito_core.api.workspace.selector import NODE_LABELS, RESERVED_ALONE

__all__ = ["KIND_CHANGES", "NODES_CHANGE", "RULES", "Rule"]

NODES_CHANGE = (
    "must not change while nodes serve: create another Workspace, and delete this one once the other is ready"
)
KIND_CHANGES = "must not change between preset and template: create another Workspace"


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `x-kubernetes-validations`.

    Attributes:
        place: Path of the schema that the rule is part of; "" is the Workspace itself, `[]` an entry of a list.
        rule: The expression over `self`, and over `oldSelf` where it is about a change.
        message: What is wrong and what would be right; follows the field's name.
        field: Path of the field that the message names, below `place`.
    """

    place: str
    rule: str
    message: str
    field: str = ""

    def to_dict(self) -> dict[str, str]:
        """Returns the rule as an entry of a schema."""
        entry = {"rule": self.rule, "message": self.message}
        return entry | ({"fieldPath": self.field} if self.field else {})


def _fixed(parent: str, name: str, is_set: str) -> Rule:
    """Returns the rule that a field by which nodes are chosen keeps its value while nodes serve.

    Args:
        parent: Path of the object that has the field, below the Workspace.
        name: The field.
        is_set: CEL expression for "`OLD`, the field's old value, is not empty".
    """
    parts = parent.split(".")
    paths = [".".join(parts[: count + 1]) for count in range(len(parts))] + [f"{parent}.{name}"]
    had = " && ".join(f"has(oldSelf.{path})" for path in paths)
    has = " && ".join(f"has(self.{path})" for path in paths)
    old, new = f"oldSelf.{parent}.{name}", f"self.{parent}.{name}"
    return Rule(
        "",
        f"!({_SERVES} && {had} && {is_set.replace('OLD', old)}) || ({has} && {new} == {old})",
        NODES_CHANGE,
        f".{parent}.{name}" if parent == "resource" else f".{parent}",
    )


_KEYS = f"self.all(key, size(key) <= {LABEL_KEY.longest} && key.matches('{LABEL_KEY.pattern}'))"
_KEYS_WORDS = f"must have keys that are {LABEL_KEY.rule}"


def _listed(texts: Iterable[str]) -> str:
    """Returns texts as a list of CEL's."""
    return "[" + ", ".join(f"'{text}'" for text in texts) + "]"


def _pod_keys(place: str) -> tuple[Rule, ...]:
    """Returns the rules of the labels or annotations of a pod or its Service."""
    return (
        Rule(place, _KEYS, _KEYS_WORDS),
        Rule(
            place,
            f"self.all(key, {_listed(RESERVED_LABELS)}.all(reserved, !key.startsWith(reserved)))",
            f"must have no keys that begin with {', '.join(RESERVED_LABELS)}",
        ),
    )


def _amounts(place: str) -> tuple[Rule, ...]:
    """Returns the rules of requests or limits."""
    return (
        Rule(place, _KEYS, _KEYS_WORDS),
        Rule(
            place,
            f"{_listed(GPU_RESOURCES)}.all(gpu, !(gpu in self))",
            "must have no GPUs: the preset and the nodes say how many a pod has",
        ),
    )


_RESERVED = f"[{', '.join(map(repr, NODE_LABELS))}]"
_SERVES = "has(oldSelf.status) && has(oldSelf.status.workerNodes) && size(oldSelf.status.workerNodes) > 0"

RULES: tuple[Rule, ...] = (
    # The schema does not require it: an API server looks at no rule of an object that lacks a field which it requires.
    Rule("", "has(self.inference) || has(self.spec)", "is required", ".inference"),
    Rule(
        "",
        "has(self.inference) || !has(self.spec)",
        "must hold nothing but replicas: resource and inference stand beside metadata, not under spec; move them there",
        ".spec",
    ),
    _fixed("resource", "instanceType", "OLD != ''"),
    _fixed("resource.labelSelector", "matchLabels", "size(OLD) > 0"),
    _fixed("resource.labelSelector", "matchExpressions", "size(OLD) > 0"),
    Rule("resource.labelSelector.matchLabels", _KEYS, _KEYS_WORDS),
    Rule(
        "resource.labelSelector",
        f"!has(self.matchLabels) || size(self.matchLabels) == 0 || !self.matchLabels.all(key, key in {_RESERVED}) || "
        f"(has(self.matchExpressions) && !self.matchExpressions.all(e, e.key in {_RESERVED}))",
        RESERVED_ALONE,
    ),
    Rule(
        "resource.labelSelector.matchExpressions[]",
        "self.operator in ['In', 'NotIn'] == (has(self.values) && size(self.values) > 0)",
        "must have values for the operators In and NotIn, and none for Exists and DoesNotExist",
    ),
    Rule(
        "inference",
        "has(self.preset) != has(self.template)",
        "must have a preset or a template, and not both",
    ),
    Rule(
        "inference",
        "has(oldSelf.preset) == has(oldSelf.template) || has(self.template) == has(oldSelf.template)",
        KIND_CHANGES,
    ),
    Rule(
        "inference",
        "!has(self.template) || ((!has(self.adapters) || size(self.adapters) == 0) && "
        "(!has(self.blends) || size(self.blends) == 0))",
        "must have no adapters and no blends beside a template: only presets apply adapters",
    ),
    Rule(
        "inference",
        "!has(self.adapters) || self.adapters.all(a, self.adapters.exists_one(b, b.source.name == a.source.name) && "
        "(!has(self.preset) || self.preset.name != a.source.name))",
        "must have names that no other adapter, blend or the preset has",
        ".adapters",
    ),
    Rule(
        "inference",
        "!has(self.blends) || self.blends.all(a, self.blends.exists_one(b, b.name == a.name) && "
        "(!has(self.preset) || self.preset.name != a.name) && "
        "(!has(self.adapters) || !self.adapters.exists(b, b.source.name == a.name)))",
        "must have names that no other blend, adapter or the preset has",
        ".blends",
    ),
    Rule(
        "inference.preset",
        "!has(self.accessMode) || self.accessMode != 'private' || "
        "(has(self.presetOptions) && has(self.presetOptions.image) && self.presetOptions.image != '')",
        "is required where accessMode is private: your image with the weights in /workspace/tfs/weights",
        ".presetOptions.image",
    ),
    Rule(
        "inference.adapters[].source",
        "[has(self.image) && self.image != '', has(self.urls) && size(self.urls) > 0, "
        "has(self.uri) && self.uri != '', has(self.volumeSource)].exists_one(given, given)",
        "must have exactly one of image, urls, uri and volumeSource",
    ),
    Rule(
        "inference.adapters[].source",
        "self.name != 'base'",
        "must not be 'base', which is the model id of the raw model",
        ".name",
    ),
    Rule(
        "inference.blends[]",
        "self.name != 'base'",
        "must not be 'base', which is the model id of the raw model",
        ".name",
    ),
    Rule(
        "inference",
        "!has(self.template) || (!has(self.pod) && !has(self.weights))",
        "must have no pod and no weights beside a template, which has a pod and volumes of its own",
    ),
    Rule(
        "inference.weights",
        "[has(self.claim) && self.claim != '', has(self.hostPath) && self.hostPath != ''].exists_one(given, given)",
        "must have exactly one of claim and hostPath",
    ),
    *_pod_keys("inference.service.annotations"),
    *_pod_keys("inference.pod.labels"),
    *_pod_keys("inference.pod.annotations"),
    Rule(
        "inference.pod.env[]",
        f"!self.name.startsWith('{RESERVED_VARIABLE_PREFIX}') && !(self.name in {_listed(RESERVED_VARIABLES)})",
        "must not set a variable that the operator, torchrun or the device plugin sets",
    ),
    Rule(
        "inference.pod.env[]",
        "!has(self.value) || self.value == '' || !has(self.valueFrom)",
        "must have value or valueFrom, and not both",
    ),
    Rule(
        "inference.pod.tolerations[]",
        "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
        "must have no value for the operator Exists",
    ),
    Rule(
        "inference.pod.tolerations[]",
        "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')",
        "must have a key for the operator Equal",
    ),
    Rule(
        "inference.pod.tolerations[]",
        "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        "must have the effect NoExecute where it has tolerationSeconds",
    ),
    *_amounts("inference.pod.resources.requests"),
    *_amounts("inference.pod.resources.limits"),
    Rule(
        "inference.pod.volumes[]",
        f"!(self.name in {_listed(RESERVED_VOLUMES)}) && !self.name.startsWith('{RESERVED_VOLUME_PREFIX}')",
        "must not have the name of a volume of the operator's",
    ),
    Rule(
        "inference.pod.volumeMounts[]",
        "self.mountPath.startsWith('/') && !self.mountPath.contains(':')",
        "must be an absolute path without ':' and '..'",
        ".mountPath",
    ),
    Rule(
        "inference.pod.volumeMounts[]",
        f"self.mountPath != '/' && self.mountPath != '{SHARED_PATH}' && {_listed(OWN_PATHS)}.all(own, "
        "self.mountPath != own && !self.mountPath.startsWith(own + '/') && !own.startsWith(self.mountPath + '/'))",
        "must not cover a path where the operator mounts a volume",
        ".mountPath",
    ),
)
