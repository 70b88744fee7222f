"""Formats of names and references in a Workspace: pattern, length, and the rule in words.

One record serves pydantic, the CRD's schema and CEL. The patterns mean the same to Python, to pydantic's engine and to
Go's RE2: ASCII classes only, no look-around, and no backslash, which CEL needs doubled.
"""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from kaito_core.api.messages import fault, shown

__all__ = [
    "HOST_PATH",
    "IMAGE",
    "INSTANCE_TYPE",
    "LABEL_KEY",
    "LABEL_VALUE",
    "OBJECT_NAME",
    "OPTIONAL_OBJECT_NAME",
    "PRESET_NAME_IN_USE",
    "QUANTITY",
    "URI",
    "URL",
    "VARIABLE",
    "VOLUME_NAME",
    "WORKSPACE_NAME",
    "Format",
]


@dataclass(frozen=True, slots=True)
class Format:
    """The format of a string; annotates fields.

    Attributes:
        rule: What the text must be; follows "must be" in messages.
        pattern: Anchored regular expression.
        longest: Most characters.
        shortest: Fewest characters.
    """

    rule: str
    pattern: str
    longest: int
    shortest: int = 0

    def matches(self, text: str) -> bool:
        """Returns whether a text has the format."""
        return self.shortest <= len(text) <= self.longest and re.fullmatch(self.pattern, text) is not None

    def check(self, text: str) -> str:
        """Returns the text.

        Raises:
            PydanticCustomError: It does not have the format.
        """
        if not self.matches(text):
            raise fault(f"must be {self.rule}, got {shown(text)}")
        return text

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Adds the check to that of the string type."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Returns the format as a JSON schema."""
        keywords = {**handler(schema), "pattern": self.pattern, "maxLength": self.longest}
        return keywords | ({"minLength": self.shortest} if self.shortest else {})


_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}([.]{_LABEL})*"
_VALUE = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"

#: The Service has the Workspace's name, so that it is an RFC 1035 label of at most 63 characters. A StatefulSet appends
#: up to 11 characters in its pods' label controller-revision-hash, more than our own "-headless".
WORKSPACE_NAME = Format(
    "lower-case letters, digits and '-', begin with a letter, end with one or a digit and have at most 52 characters",
    r"^[a-z]([-a-z0-9]*[a-z0-9])?$",
    52,
    1,
)
#: A label's value: nodes have it in node.kubernetes.io/instance-type.
INSTANCE_TYPE = Format(
    "a machine type: letters, digits, '-', '_' and '.', at most 63 characters", rf"^({_VALUE})?$", 63
)
LABEL_VALUE = Format(
    "a label's value: letters, digits, '-', '_' and '.', begin and end with a letter or digit and have at most 63 "
    "characters",
    rf"^({_VALUE})?$",
    63,
)
LABEL_KEY = Format(
    "a label's key: an optional domain and '/', then letters, digits, '-', '_' and '.', at most 63 of them",
    rf"^({_SUBDOMAIN}/)?{_VALUE}$",
    317,
    1,
)
OBJECT_NAME = Format(
    "the name of an object: lower-case letters, digits, '-' and '.', at most 253 characters", rf"^{_SUBDOMAIN}$", 253, 1
)
OPTIONAL_OBJECT_NAME = Format(OBJECT_NAME.rule, rf"^({_SUBDOMAIN})?$", 253)
#: A preset's own name, or "org/model@revision". Whether there is such a preset is checked in `reconcile.validate`.
PRESET_NAME_IN_USE = Format(
    "the name of a preset, or org/model: letters, digits and '-', '_', '.', '/' and '@', at most 253 characters",
    r"^[A-Za-z0-9][-A-Za-z0-9_./@]*$",
    253,
    1,
)
#: Loose on purpose: the adapter source that pulls the image checks the reference.
IMAGE = Format("an image reference without blanks, at most 512 characters", r"^[!-~]*$", 512)
URL = Format("a URL without blanks, at most 2048 characters", r"^[!-~]+$", 2048, 1)
URI = Format(
    "a uri of the form scheme://..., at most 2048 characters", r"^(([A-Za-z][-+.A-Za-z0-9]*://|file:)[ -~]*)?$", 2048
)
QUANTITY = Format(
    "a Kubernetes quantity such as 2, 500m or 16Gi", r"^([0-9]+([.][0-9]+)?|[.][0-9]+)(m|k|[MGTPE]i?|Ki)?$", 32, 1
)
VARIABLE = Format(
    "the name of a variable: letters, digits, '_', '-' and '.', no digit first", r"^[-._a-zA-Z][-._a-zA-Z0-9]*$", 253, 1
)
VOLUME_NAME = Format(
    "lower-case letters, digits and '-', begin and end with a letter or digit and have at most 63 characters",
    rf"^{_LABEL}$",
    63,
    1,
)
HOST_PATH = Format(
    "an absolute path of folders that do not begin with '.', at most 1024 characters",
    r"^((/[^./:][^/:]*)+/?)?$",
    1024,
)
