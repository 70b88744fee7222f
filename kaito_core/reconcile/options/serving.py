"""The options of a server that `inference.config` names: read from a ConfigMap, and where each of them goes.

An option is one row of `OPTIONS`. The section `kaito` has them under our names; of upstream's section `vllm` those that
mean the same here are read. What has no meaning here is named in warnings, and never an error: documents of upstream
apply unchanged.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import yaml

from kaito_core.api.messages import shown
from kaito_core.api.preset.quantization import QUANTIZATIONS
from kaito_core.api.workspace.formats import OBJECT_NAME
from kaito_core.errors import FieldError, InvalidConfigError, known_names

__all__ = ["CONFIG_KEY", "OPTIONS", "Option", "ServingOptions", "read_options"]

CONFIG_KEY = "inference_config.yaml"  #: key of the ConfigMap, upstream's
_OURS, _THEIRS = "kaito", "vllm"
_FIELD = "inference.config"


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        name: Its key in the section `kaito`.
        kind: Type of its value; for "name" the name of a Secret.
        meaning: What it does.
        where: "flag": an argument of `kaito-runtime serve`, so that a change replaces the pods; "model": a field of the
            ServingConfig's model, likewise; "limit": one of its limits, which servers apply while they run; "secret".
        least: Smallest value of a number.
        upstream: Key in upstream's section `vllm` that means the same, "" for none.
        choices: Values of a text, none for any.
    """

    name: str
    kind: Literal["whole", "number", "switch", "text", "name", "size"]
    meaning: str
    where: Literal["flag", "model", "limit", "secret"] = "flag"
    least: float = 0
    upstream: str = ""
    choices: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """Name of the field of the ServingConfig that has it."""
        return self.name.replace("-", "_")


OPTIONS: tuple[Option, ...] = (
    Option(
        "context-length",
        "whole",
        "Longest sequence of prompt and answer, in tokens; at most the preset's.",
        where="model",
        least=1,
        upstream="max-model-len",
    ),
    Option(
        "dtype",
        "text",
        "Type of the weights and of arithmetic.",
        where="model",
        upstream="dtype",
        choices=("auto", "bfloat16", "float16", "float32"),
    ),
    Option(
        "quantization",
        "text",
        "How weights are quantised while they are loaded.",
        where="model",
        choices=QUANTIZATIONS,
    ),
    Option("adapter-memory", "size", "Memory for the adapters that are in use at once, on each GPU.", where="model"),
    Option(
        "max-adapter-rank",
        "whole",
        "Adapters of a larger rank are refused.",
        where="model",
        least=1,
        upstream="max-lora-rank",
    ),
    Option("cache-gib", "number", "Memory for keys and values, in GiB.", least=0.01),
    Option("batch-requests", "whole", "Most requests in one forward pass.", least=1, upstream="max-num-seqs"),
    Option("step-tokens", "whole", "Most tokens in one forward pass.", least=16, upstream="max-num-batched-tokens"),
    Option(
        "reuse-prefixes",
        "switch",
        "Reuse keys and values of prompts that begin alike, under equal adapters and strengths.",
        upstream="enable-prefix-caching",
    ),
    Option("max-waiting", "whole", "Most requests that wait; more get 429."),
    Option("request-seconds", "number", "Time limit of a request, waiting included.", where="limit", least=1),
    Option(
        "api-key-secret",
        "name",
        "Name of a Secret, each of whose keys is a name and holds a bearer token; requests must carry one of them.",
        where="secret",
    ),
    Option("key-requests-per-minute", "whole", "Most requests of an API key in a minute.", least=1),
    Option("key-tokens-per-minute", "whole", "Most tokens of an API key in a minute.", least=1),
)
_SIZE = re.compile(r"[1-9][0-9]*(Mi|Gi)", re.ASCII)
_LIMITS_OF_KEYS = ("key-requests-per-minute", "key-tokens-per-minute")
_BY_NAME = {option.name: option for option in OPTIONS}
_BY_UPSTREAM = {option.upstream: option for option in OPTIONS if option.upstream}
#: Values of upstream's that mean one of ours, or, with None, what is the case without the option.
_TRANSLATED: Mapping[tuple[str, object], object] = {
    ("dtype", "half"): "float16",
    ("dtype", "float"): "float32",
    ("max-model-len", "auto"): None,
    ("max-model-len", -1): None,
}


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """What a ConfigMap says about serving.

    Attributes:
        values: The options that are given, by name.
        ignored: What has no meaning here, in words.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of `kaito-runtime serve`."""
        words: list[str] = []
        for option in self._given("flag"):
            value = self.values[option.name]
            if option.kind != "switch":
                words += [f"--{option.name}", f"{value:g}" if isinstance(value, float) else str(value)]
            elif value:
                words.append(f"--{option.name}")
        return tuple(words)

    @property
    def api_key_secret(self) -> str:
        """Name of the Secret with the API key, "" for none."""
        return str(self.values.get("api-key-secret", ""))

    def without(self, name: str) -> Self:
        """Returns the options without one."""
        return replace(self, values={key: value for key, value in self.values.items() if key != name})

    def of(self, where: str) -> dict[str, Any]:
        """Returns the options that go into one part of the ServingConfig, by the name of its field."""
        return {option.field: self.values[option.name] for option in self._given(where)}

    @property
    def revision(self) -> str:
        """Hash of what a running server cannot take up from its configuration, "" for nothing."""
        fixed = self.of("model")
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:8] if fixed else ""

    def _given(self, where: str) -> Iterator[Option]:
        return (option for option in OPTIONS if option.where == where and option.name in self.values)


def read_options(name: str, data: Mapping[str, Any], longest: int) -> ServingOptions:
    """Returns the options in a ConfigMap.

    Args:
        name: Name of the ConfigMap, for messages.
        data: Its data.
        longest: Context length of the preset.

    Raises:
        InvalidConfigError: It is no YAML, lacks the key, or has a value that cannot be used; names each.
    """
    where = f"names ConfigMap '{name}', whose"
    if CONFIG_KEY not in data:
        raise _invalid([f"{where} key {CONFIG_KEY} is missing (it has {', '.join(sorted(data)) or 'no key'})"])
    where = f"{where} key {CONFIG_KEY}"
    try:
        document = yaml.safe_load(str(data[CONFIG_KEY]))
    except (yaml.YAMLError, RecursionError) as error:
        raise _invalid([f"{where} is no YAML: {' '.join(str(error).split())}"]) from error
    if not isinstance(document, Mapping | None):
        raise _invalid([f"{where} must be a mapping of sections, got {shown(document)}"])
    values: dict[str, Any] = {}
    ignored: list[str] = []
    faults: list[str] = []
    # Ours last: it counts where both say something.
    for section in sorted(document or {}, key=lambda key: key == _OURS):
        entries = (document or {})[section]
        if section not in (_OURS, _THEIRS):
            ignored.append(str(section))
        elif not isinstance(entries, Mapping | None):
            faults.append(f"{section} must be a mapping, got {shown(entries)}")
        else:
            for key, value in (entries or {}).items():
                _read(section, key, value, longest, values, ignored, faults)
    if not faults and "api-key-secret" not in values:
        faults += [f"{_OURS}.{name} needs {_OURS}.api-key-secret" for name in _LIMITS_OF_KEYS if name in values]
    if faults:
        raise _invalid([f"{where}: {fault}" for fault in faults])
    return ServingOptions(values, tuple(ignored))


def _read(
    section: str,
    key: object,
    value: object,
    longest: int,
    values: dict[str, Any],
    ignored: list[str],
    faults: list[str],
) -> None:
    """Reads one entry into `values`, or says why not."""
    option = (_BY_NAME if section == _OURS else _BY_UPSTREAM).get(str(key).replace("_", "-"))
    if option is None and section == _OURS:
        faults.append(f"{section}.{key} is not an option; {known_names(_BY_NAME, str(key))}")
    elif option is None:
        ignored.append(f"{section}.{key}")
    elif value is None:
        return
    else:
        if section == _THEIRS and (isinstance(value, str | int) and (option.upstream, value) in _TRANSLATED):
            value = _TRANSLATED[option.upstream, value]
            if value is None:
                return
        if fault := _fault(option, value, longest):
            faults.append(f"{section}.{key} {fault}, got {shown(value)}")
        else:
            values[option.name] = float(value) if option.kind == "number" else value  # type: ignore[arg-type]


def _fault(option: Option, value: object, longest: int) -> str:
    """Returns what is wrong with the value of an option, "" for nothing."""
    if option.kind == "switch":
        return "" if isinstance(value, bool) else "must be true or false"
    if option.kind == "text":
        return "" if value in option.choices else f"must be one of {', '.join(option.choices)}"
    if option.kind == "size":
        return "" if isinstance(value, str) and _SIZE.fullmatch(value) else "must be a size such as 2Gi or 500Mi"
    if option.kind == "name":
        if not isinstance(value, str):
            return "must be the name of a Secret"
        return "" if OBJECT_NAME.matches(value) else f"must be {OBJECT_NAME.rule}"
    kinds: tuple[type, ...] = (int,) if option.kind == "whole" else (int, float)
    words = "a whole number" if option.kind == "whole" else "a number"
    if not isinstance(value, kinds) or isinstance(value, bool) or not math.isfinite(value):  # type: ignore[arg-type]
        return f"must be {words}"
    if value < option.least:  # type: ignore[operator]
        return f"must be {words}, {option.least:g} or more"
    if option.name == "context-length" and value > longest:  # type: ignore[operator]
        return f"must be at most {longest}, the preset's context length"
    return ""


def _invalid(faults: Sequence[str]) -> InvalidConfigError:
    return InvalidConfigError([FieldError(_FIELD, fault) for fault in faults])
