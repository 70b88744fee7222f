"""What the emulated API checks in a CRD: names, versions, and whether its validation rules are CEL.

A real API server also judges whether the schema is structural and what the rules cost at most. Neither is judged here,
but for one costly rule that many write: test a CRD on a real server before it is published.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kaito_testing.kube.errors import Cause
from kaito_testing.kube.schemas import cel

__all__ = ["crd_problems"]

Schema = Mapping[str, Any]

#: To the API server the values of `orValue` have no bound, so that comparing two of them costs too much.
_COMPARED_OPTIONALS = re.compile(r"\.orValue\([^()]*\)\s*[!=]=.*\.orValue\(")
_OVER_BUDGET = (
    "exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and"
    " maxLength where arrays, maps, and strings are declared)"
)


def crd_problems(crd: Mapping[str, Any]) -> list[Cause]:
    """The causes for which a CRD is refused."""
    spec, name = crd["spec"], crd["metadata"]["name"]
    if name != f"{spec['names']['plural']}.{spec['group']}":
        return [Cause("metadata.name", f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group')]
    if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
        message = "Invalid value: must have exactly one version marked as storage version"
        return [Cause("spec.versions", message)]
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") or {} for version in spec["versions"]]
    if all(schema == schemas[0] for schema in schemas):
        return _rule_problems(schemas[0], "spec.validation.openAPIV3Schema")
    return [
        cause
        for index, schema in enumerate(schemas)
        for cause in _rule_problems(schema, f"spec.versions[{index}].schema.openAPIV3Schema")
    ]


def _rule_problems(schema: Schema, root: str) -> list[Cause]:
    causes: list[Cause] = []
    for place, text in _rules(schema, root):
        if not text.strip():
            causes.append(Cause(place, "Required value: rule is not specified", "FieldValueRequired"))
        elif problem := cel.compile_problem(text):
            causes.append(Cause(place, f"Invalid value: compilation failed: {problem}"))
        elif _COMPARED_OPTIONALS.search(text):
            share = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            total = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema"
            causes += [
                Cause(where, f"Forbidden: {words}", "FieldValueForbidden")
                for where, words in (
                    (place, f"estimated rule cost {_OVER_BUDGET}"),
                    (place, share),
                    (root, f"{total} {_OVER_BUDGET}"),
                )
            ]
    return causes


def _rules(schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    """The rules of a schema: their paths and texts."""
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        yield f"{path}.x-kubernetes-validations[{index}].rule", rule.get("rule") or ""
    for name, part in (schema.get("properties") or {}).items():
        yield from _rules(part, f"{path}.properties[{name}]")
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), Mapping):
            yield from _rules(schema[word], f"{path}.{word}")
