"""One table of valid and invalid Workspaces, with which all their validation is tested.

The Python rules, the CRD's schema and CEL rules and the admission webhook must give the same verdict on every row, on
creation and on every edit; `docs/reference/validation.md` is written from it.
"""

from __future__ import annotations

from kaito_core.api.adapter import MAX_ADAPTERS
from kaito_core.api.workspace.adapters import MAX_SECRETS, MAX_URLS
from kaito_core.api.workspace.model import MAX_BLENDS, MAX_COUNT
from kaito_core.api.workspace.selector import MAX_LABELS, MAX_VALUES
from kaito_testing.cases.documents import (
    IMAGE,
    UNKNOWN_FIELD,
    Case,
    adapter,
    bad,
    blends,
    expression,
    good,
    labels,
    serving,
    source,
    strength,
    template,
    workspace_document,
)
from kaito_testing.cases.placement import PLACEMENT
from kaito_testing.cases.pods import POD_CASES

__all__ = ["CASES", "Case", "workspace_document"]

_A0 = "inference.adapters[0]"
_S0 = f"{_A0}.source"
_SELECTOR = "resource.labelSelector"
_TEMPLATE = {"spec": {"containers": [{"name": "server", "image": "registry.example/mine:1"}]}}
_UNTYPED = "a structural schema has no type for text or a number, and CEL reads no value without a type"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 20 else f"{text[:8]}... of {len(text) - 2} characters"


def _strengths() -> tuple[Case, ...]:
    rule = "strength is a number, or a number in a string, from -10 to 10"
    accepted = (
        "0.2",
        "1",
        "-1",
        "1e-3",
        "+.5",
        "10.0",
        "-10",
        "5.",
        "007",
        "1e-300",
        "0." + "0" * 62,
        1,
        0,
        -10,
        0.25,
        10.0,
    )
    refused: tuple[object, ...] = (
        *("NaN", "inf", "-Infinity", "abc", "", " 1", "1 ", "1\n", "0x1p-2", "1_0", "11", "-10.5", "1e1", "1e999"),
        *("10.00001", "١", "9" * 65, "0." + "0" * 63, 11, -10.5, True, False, [], [1], {}, {"a": 1}),
    )
    return (
        *(Case(rule, _short(value), strength(value)) for value in accepted),
        *(Case(rule, _short(value), strength(value), refused=(f"{_A0}.strength",)) for value in refused),
    )


_UNIQUE = "names of adapters and blends are unique, and not the preset's"
_FIXED = "instanceType and labelSelector do not change while nodes serve"
_KIND = "a Workspace does not change between preset and template"
_EDITS = "an edit may leave a fault that was there before, and brings none"
_ONE_SOURCE = "an adapter has exactly one of image, urls, uri and volumeSource"
_KEY = "a label's key has an optional domain and at most 63 characters of a name"

CASES: tuple[Case, ...] = (
    *good(
        "a Workspace may hold every field",
        smallest=workspace_document(inference={"preset": {"name": "m"}}),
        with_adapter=workspace_document(),
        v1alpha1=workspace_document(apiVersion="kaito.sh/v1alpha1"),
        everything=workspace_document(
            resource={
                "count": 2,
                "instanceType": "Standard_NC24ads_A100_v4",
                "preferredNodes": ["gpu-1", "gpu-2.rack.example"],
                "labelSelector": {
                    "matchLabels": {"apps": "demo", "example.com/rack": ""},
                    "matchExpressions": [
                        {"key": "a", "operator": "In", "values": ["b"]},
                        {"key": "c", "operator": "Exists"},
                    ],
                },
            },
            inference={
                "preset": {
                    "name": "falcon-7b",
                    "accessMode": "private",
                    "presetOptions": {"image": IMAGE, "imagePullSecrets": ["pull"], "modelAccessSecret": "token"},
                },
                "adapters": [
                    adapter("a", strength="0.5", digest="sha256:" + "0" * 64),
                    {"source": {"name": "b", "uri": "hf://owner/name@main"}, "strength": -1},
                    {"source": {"name": "c", "urls": ["https://a.example/x", "https://a.example/y"]}},
                    {"source": {"name": "d", "volumeSource": {"persistentVolumeClaim": {"claimName": "e"}}}},
                ],
                "blends": [{"name": "mix", "strengths": {"a": "0.5", "b": 1.5}}],
                "config": "params",
            },
        ),
        own_template=template(_TEMPLATE),
    ),
    *bad(
        "the name is a label that begins with a letter, at most 52 characters",
        "metadata.name",
        too_long=workspace_document(metadata__name="a" * 53),
        begins_with_a_digit=workspace_document(metadata__name="7b"),
        dots=workspace_document(metadata__name="a.b"),
    ),
    *good(
        "the name is a label that begins with a letter, at most 52 characters",
        at_the_limit=workspace_document(metadata__name="a" * 52),
    ),
    *bad("inference is there", "inference", absent=workspace_document(inference=...)),
    *bad(
        "exactly one of preset and template",
        "inference",
        neither=workspace_document(inference={}),
        both=workspace_document(inference={"preset": {"name": "m"}, "template": _TEMPLATE}),
    ),
    *bad(
        "no adapters and no blends beside a template",
        "inference",
        adapters=workspace_document(inference={"template": _TEMPLATE, "adapters": [adapter()]}),
        blends=workspace_document(inference={"template": _TEMPLATE, "blends": [{"name": "b", "strengths": {"a": 1}}]}),
    ),
    *good(
        "no adapters and no blends beside a template",
        empty_lists=workspace_document(inference={"template": _TEMPLATE, "adapters": [], "blends": []}),
    ),
    *bad(
        "a template has a container",
        "inference.template",
        empty=template({}),
        no_containers=template({"spec": {}}),
        empty_list=template({"spec": {"containers": []}}),
        no_mapping=template({"spec": {"containers": ["a"]}}),
        env_as_text=template({"spec": {"containers": [{"name": "a", "env": "A=1"}]}}),
        labels_as_list=template({"metadata": {"labels": []}, **_TEMPLATE}),
    ),
    *bad(
        "a preset has a name",
        "inference.preset.name",
        absent=workspace_document(inference__preset={}),
        empty=workspace_document(inference__preset={"name": ""}),
        blanks=workspace_document(inference__preset={"name": "a b"}),
        too_long=workspace_document(inference__preset={"name": "a" * 254}),
    ),
    *good("a preset has a name", org_and_model=workspace_document(inference__preset={"name": "Org/Model-7B@main"})),
    *bad(
        "accessMode is public or private",
        "inference.preset.accessMode",
        other=workspace_document(inference__preset__accessMode="secret"),
    ),
    *bad(
        "accessMode private comes with an image",
        "inference.preset.presetOptions.image",
        no_options=workspace_document(inference__preset__accessMode="private"),
        empty=workspace_document(
            inference__preset={"name": "m", "accessMode": "private", "presetOptions": {"image": ""}}
        ),
    ),
    *bad(
        "names of Secrets and ConfigMaps are object names",
        "inference.preset.presetOptions.modelAccessSecret",
        access_secret=workspace_document(inference__preset__presetOptions={"modelAccessSecret": "HF_TOKEN"}),
    ),
    *bad(
        "names of Secrets and ConfigMaps are object names",
        "inference.preset.presetOptions.imagePullSecrets[0]",
        pull_secret=workspace_document(inference__preset__presetOptions={"imagePullSecrets": [""]}),
    ),
    *bad(
        "names of Secrets and ConfigMaps are object names",
        f"{_S0}.imagePullSecrets[0]",
        adapter_secret=source(image=IMAGE, imagePullSecrets=["A"]),
    ),
    *bad(
        "names of Secrets and ConfigMaps are object names",
        f"{_S0}.imagePullSecrets",
        too_many=source(image=IMAGE, imagePullSecrets=["a"] * (MAX_SECRETS + 1)),
    ),
    *bad(
        "names of Secrets and ConfigMaps are object names",
        "inference.config",
        config=workspace_document(inference__config="No"),
    ),
    *bad(
        "at most 10 adapters",
        "inference.adapters",
        eleven=workspace_document(inference__adapters=[adapter(f"a{i}") for i in range(MAX_ADAPTERS + 1)]),
    ),
    *good(
        "at most 10 adapters",
        ten=workspace_document(inference__adapters=[adapter(f"a{i}") for i in range(MAX_ADAPTERS)]),
    ),
    *bad("an adapter has a source", f"{_A0}.source", absent=workspace_document(inference__adapters=[{"strength": 1}])),
    *bad(
        "an adapter's name is a label of at most 55 characters, and not base",
        f"{_S0}.name",
        absent=workspace_document(inference__adapters=[{"source": {"image": IMAGE}}]),
        empty=workspace_document(inference__adapters=[adapter("")]),
        capitals=workspace_document(inference__adapters=[adapter("Adapter-1")]),
        dots=workspace_document(inference__adapters=[adapter("a.b")]),
        path=workspace_document(inference__adapters=[adapter("../x")]),
        newline=workspace_document(inference__adapters=[adapter("a\n")]),
        too_long=workspace_document(inference__adapters=[adapter("a" * 56)]),
        base=workspace_document(inference__adapters=[adapter("base")]),
    ),
    *good(
        "an adapter's name is a label of at most 55 characters, and not base",
        at_the_limit=workspace_document(inference__adapters=[adapter("a" * 55)]),
    ),
    *bad(
        _ONE_SOURCE,
        _S0,
        none=source(),
        empty=source(image="", urls=[], uri=""),
        image_and_uri=source(image=IMAGE, uri="hf://a/b"),
        image_and_volume=source(image=IMAGE, volumeSource={"emptyDir": {}}),
        urls_and_uri=source(urls=["https://a.example/x"], uri="hf://a/b"),
    ),
    *good(_ONE_SOURCE, beside_empty_ones=source(image=IMAGE, urls=[], uri="")),
    *bad(
        "an image reference has no blanks and at most 512 characters",
        f"{_S0}.image",
        blank=source(image="a b"),
        too_long=source(image="a" * 513),
    ),
    *bad(
        "a URL has no blanks and at most 2048 characters",
        f"{_S0}.urls[0]",
        blank=source(urls=["https://a.example/x y"]),
        empty=source(urls=[""]),
        too_long=source(urls=["https://a.example/" + "x" * 2048]),
    ),
    *bad(
        "a URL has no blanks and at most 2048 characters",
        f"{_S0}.urls",
        too_many=source(urls=["https://a.example/x"] * (MAX_URLS + 1)),
    ),
    *bad("a uri names a scheme", f"{_S0}.uri", path=source(uri="models/style"), no_scheme=source(uri="://x")),
    *good("a uri names a scheme", file=source(uri="file:adapters/style"), hub=source(uri="hf://owner/name")),
    *bad(
        "a volumeSource has exactly one kind of volume",
        f"{_S0}.volumeSource",
        none=source(volumeSource={}),
        two=source(volumeSource={"emptyDir": {}, "hostPath": {"path": "/x"}}),
    ),
    *bad(
        "a digest is sha256: and 64 hexadecimal digits",
        f"{_A0}.digest",
        short=workspace_document(inference__adapters=[adapter(digest="sha256:abc")]),
        capitals=workspace_document(inference__adapters=[adapter(digest="sha256:" + "A" * 64)]),
    ),
    *_strengths(),
    *bad(
        _UNIQUE,
        "inference.adapters",
        two_adapters=workspace_document(inference__adapters=[adapter(), adapter()]),
        adapter_and_preset=workspace_document(inference__adapters=[adapter("falcon-7b")]),
    ),
    *bad(
        _UNIQUE,
        "inference.blends",
        two_blends=blends(("mix", {"style": 1}), ("mix", {"style": 1})),
        blend_and_adapter=blends(("style", {"style": 1})),
        blend_and_preset=blends(("falcon-7b", {"style": 1})),
    ),
    *bad(
        _UNIQUE,
        "inference.adapters",
        "the model id of org/model contains a hash, which CEL cannot compute",
        adapter_and_model=workspace_document(
            inference={"preset": {"name": "org/model"}, "adapters": [adapter("org--model")]}
        ),
    ),
    *bad(
        "a blend has a name of its own and at least one strength",
        "inference.blends[0]",
        base=blends(("base", {"style": 1})),
        capitals=blends(("Mix", {"style": 1})),
        no_strengths=blends(("mix", {})),
        no_name=workspace_document(inference__blends=[{"strengths": {"style": 1}}]),
        strength_of_text=blends(("mix", {"style": "much"})),
        strength_left_empty=blends(("mix", {"style": ""})),
        strength_too_large=blends(("mix", {"style": 11})),
    ),
    *bad(
        "at most 64 blends",
        "inference.blends",
        one_more=blends(*((f"m{i}", {"style": 1}) for i in range(MAX_BLENDS + 1))),
    ),
    *good("at most 64 blends", as_many=blends(*((f"m{i}", {"style": 1}) for i in range(MAX_BLENDS)))),
    *bad(
        "a blend names adapters of its Workspace",
        "inference.blends[0].strengths",
        _UNTYPED,
        unknown=blends(("mix", {"style": 1, "other": 1})),
    ),
    *PLACEMENT,
    *bad(
        "instanceType is a label's value",
        "resource.instanceType",
        blank=workspace_document(resource__instanceType="Standard NC24"),
        too_long=workspace_document(resource__instanceType="a" * 64),
    ),
    *bad(
        "preferredNodes are names of nodes",
        "resource.preferredNodes",
        capitals=workspace_document(resource__preferredNodes=["GPU-1"]),
        empty=workspace_document(resource__preferredNodes=[""]),
        text=workspace_document(resource__preferredNodes="gpu-1"),
        too_many=workspace_document(resource__preferredNodes=["a"] * (MAX_COUNT + 1)),
    ),
    *bad(
        "a selector's values are labels' values",
        f"{_SELECTOR}.matchLabels",
        blank=labels({"a": "b c"}),
        too_long=labels({"a": "b" * 64}),
        number=labels({"a": 8}),
        too_many=labels({f"a{i}": "" for i in range(MAX_LABELS + 1)}),
    ),
    *bad(
        _KEY,
        f"{_SELECTOR}.matchLabels",
        blank=labels({"a b": "c"}),
        empty=labels({"": "c"}),
        too_long=labels({"a" * 64: "b"}),
        two_slashes=labels({"a/b/c": "d"}),
    ),
    *bad(_KEY, f"{_SELECTOR}.matchExpressions[0].key", in_an_expression=expression(key="a b", operator="Exists")),
    *bad(
        "In and NotIn have values, Exists and DoesNotExist have none",
        f"{_SELECTOR}.matchExpressions[0]",
        in_without=expression(operator="In"),
        in_with_an_empty_list=expression(operator="NotIn", values=[]),
        exists_with=expression(operator="Exists", values=["b"]),
        unknown_operator=expression(operator="Near"),
        no_operator=expression(),
        too_many=expression(operator="In", values=["a"] * (MAX_VALUES + 1)),
    ),
    *bad(
        "every field is a field of a Workspace",
        "inference.adaptors",
        UNKNOWN_FIELD,
        misspelt=workspace_document(inference__adaptors=[]),
    ),
    *POD_CASES,
    *bad("there is no tuning", "tuning", UNKNOWN_FIELD, tuning=workspace_document(tuning={"preset": {"name": "m"}})),
    # Edits
    *(
        Case("everything else may change", name, new, old)
        for name, old, new in (
            ("strengths", strength("0.5"), strength("0.7")),
            ("adapters", workspace_document(), workspace_document(inference__adapters=[adapter("other")])),
            ("preset", workspace_document(), workspace_document(inference__preset__name="falcon-40b")),
            ("count", workspace_document(resource__count=1), workspace_document(resource__count=3)),
            ("preferred nodes", workspace_document(resource__preferredNodes=["a"]), workspace_document()),
            ("template", template(_TEMPLATE), template({"spec": {"containers": [{"name": "b", "image": "c"}]}})),
            ("labels of the object", workspace_document(), workspace_document(metadata__labels={"a": "b"})),
        )
    ),
    Case(_FIXED, "set later", workspace_document(resource__instanceType="b"), serving(workspace_document())),
    Case(
        _FIXED,
        "put right before there are nodes",
        workspace_document(resource__instanceType="b"),
        workspace_document(resource__instanceType="a"),
    ),
    Case(_FIXED, "other labels before there are nodes", labels({"a": "c"}), labels({"a": "b"})),
    Case(_FIXED, "the same", labels({"a": "b"}), serving(labels({"a": "b"}))),
    *(
        Case(_FIXED, name, new, serving(old), refused=(field,))
        for name, field, old, new in (
            (
                "another type",
                "resource.instanceType",
                workspace_document(resource__instanceType="a"),
                workspace_document(resource__instanceType="b"),
            ),
            (
                "type taken out",
                "resource.instanceType",
                workspace_document(resource__instanceType="a"),
                workspace_document(),
            ),
            ("other labels", _SELECTOR, labels({"a": "b"}), labels({"a": "c"})),
            ("labels taken out", _SELECTOR, labels({"a": "b"}), workspace_document()),
            ("other expressions", _SELECTOR, expression(operator="Exists"), expression(operator="DoesNotExist")),
        )
    ),
    Case(_KIND, "to template", template(_TEMPLATE), workspace_document(), refused=("inference",)),
    Case(_KIND, "to preset", workspace_document(), template(_TEMPLATE), refused=("inference",)),
    Case(
        _EDITS,
        "strength stays wrong",
        workspace_document(inference__adapters=[adapter(strength="NaN")], resource__count=2),
        strength("NaN"),
    ),
    Case(
        _EDITS,
        "duplicate stays",
        workspace_document(inference__adapters=[adapter(), adapter()], resource__count=2),
        workspace_document(inference__adapters=[adapter(), adapter()]),
    ),
    Case(
        _EDITS,
        "name of a selector stays wrong",
        workspace_document(resource__labelSelector={"matchLabels": {"a b": "c"}}, resource__count=2),
        labels({"a b": "c"}),
    ),
    Case(
        _EDITS,
        "one of two put right",
        workspace_document(inference__adapters=[adapter(strength="NaN")], resource__count=1),
        workspace_document(inference__adapters=[adapter(strength="NaN")], resource__count=-1),
    ),
    Case(
        _EDITS,
        "an adapter beside a wrong one",
        workspace_document(inference__adapters=[adapter(strength="NaN"), adapter("other")]),
        strength("NaN"),
        refused=(f"{_A0}.strength",),
    ),
    Case(_EDITS, "wrong in another way", strength("inf"), strength("NaN"), refused=(f"{_A0}.strength",)),
    Case(_EDITS, "wrong from now on", strength("NaN"), strength("0.5"), refused=(f"{_A0}.strength",)),
    Case(
        _EDITS,
        "duplicate from now on",
        workspace_document(inference__adapters=[adapter(), adapter()]),
        workspace_document(),
        refused=("inference.adapters",),
    ),
    Case(
        _EDITS,
        "preset renamed to what an adapter is called",
        workspace_document(inference__preset={"name": "style"}),
        workspace_document(),
        refused=("inference.adapters",),
    ),
)
