"""How names and references in a Workspace are spelt: pattern, length, and the rule in words. Data, and one annotation.

The same records make pydantic refuse and the CRD's schema say so. The patterns mean the same to Python, to pydantic's
engine and to Go's RE2: ASCII classes only, no look-around, and no backslash, which CEL would want doubled.
"""

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from kaito_core.api.messages import fault, shown

__all__ = [
    "IMAGE",
    "INSTANCE_TYPE",
    "LABEL_KEY",
    "LABEL_VALUE",
    "OBJECT_NAME",
    "OPTIONAL_OBJECT_NAME",
    "PRESET_NAME_IN_USE",
    "URI",
    "URL",
    "WORKSPACE_NAME",
    "Spelling",
]


@dataclass(frozen=True, slots=True)
class Spelling:
    """Annotation of a string field.

    Attributes:
        rule: What the text must be, as a message goes on after "must be".
        pattern: Anchored regular expression.
        longest: Most characters.
        shortest: Fewest characters.
    """

    rule: str
    pattern: str
    longest: int
    shortest: int = 0

    def check(self, text: str) -> str:
        """Returns the text, or raises what pydantic turns into a fault of the field."""
        if not self.shortest <= len(text) <= self.longest or re.fullmatch(self.pattern, text) is None:
            raise fault(f"must be {self.rule}, got {shown(text)}")
        return text

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Checks after the string itself is known to be one."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Says the same as a JSON schema."""
        words = {**handler(schema), "pattern": self.pattern, "maxLength": self.longest}
        return words | ({"minLength": self.shortest} if self.shortest else {})


_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}([.]{_LABEL})*"
_VALUE = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"

#: The Service has the Workspace's name: an RFC 1035 label. Eleven of its 63 characters are left for what a StatefulSet
#: adds in the label controller-revision-hash of its pods, which is longer than "-headless".
WORKSPACE_NAME = Spelling(
    "lower-case letters, digits and '-', begin with a letter, end with one or a digit and have at most 52 characters",
    r"^[a-z]([-a-z0-9]*[a-z0-9])?$",
    52,
    1,
)
#: Nodes carry it in the label node.kubernetes.io/instance-type.
INSTANCE_TYPE = Spelling(
    "a machine type: letters, digits, '-', '_' and '.', at most 63 characters", rf"^({_VALUE})?$", 63
)
LABEL_VALUE = Spelling(
    "a label's value: letters, digits, '-', '_' and '.', begin and end with a letter or digit and have at most 63 "
    "characters",
    rf"^({_VALUE})?$",
    63,
)
LABEL_KEY = Spelling(
    "a label's key: an optional domain and '/', then letters, digits, '-', '_' and '.', at most 63 of them",
    rf"^({_SUBDOMAIN}/)?{_VALUE}$",
    317,
    1,
)
OBJECT_NAME = Spelling(
    "the name of an object: lower-case letters, digits, '-' and '.', at most 253 characters", rf"^{_SUBDOMAIN}$", 253, 1
)
OPTIONAL_OBJECT_NAME = Spelling(OBJECT_NAME.rule, rf"^({_SUBDOMAIN})?$", 253)
#: A preset's own name, or "org/model@revision"; what is installed decides the rest.
PRESET_NAME_IN_USE = Spelling(
    "the name of a preset, or org/model: letters, digits and '-', '_', '.', '/' and '@', at most 253 characters",
    r"^[A-Za-z0-9][-A-Za-z0-9_./@]*$",
    253,
    1,
)
#: Whether it is an image reference is for the source that pulls it to say.
IMAGE = Spelling("an image reference without blanks, at most 512 characters", r"^[!-~]*$", 512)
URL = Spelling("a URL without blanks, at most 2048 characters", r"^[!-~]+$", 2048, 1)
URI = Spelling(
    "a uri of the form scheme://..., at most 2048 characters", r"^(([A-Za-z][-+.A-Za-z0-9]*://|file:)[ -~]*)?$", 2048
)
