"""Choices about machines besides their type: with options for all Workspaces, with annotations for one.

Choices are tuples of allowed values by label. Karpenter uses the label as key of a claim's requirement.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from kaito_core.errors import ConfigError, FieldError, InvalidWorkspaceError

__all__ = ["ARCHITECTURE", "CAPACITY_TYPE", "ZONE", "annotated", "chosen", "option_variable"]

CAPACITY_TYPE: Final = "karpenter.sh/capacity-type"
ZONE: Final = "topology.kubernetes.io/zone"
ARCHITECTURE: Final = "kubernetes.io/arch"


@dataclass(frozen=True, slots=True)
class _Choice:
    """One thing that can be chosen.

    Attributes:
        option: Name of the plugin's option, and with dashes of the annotation.
        label: Karpenter's label.
        value: Pattern of a value.
        possible: Description of the values, for messages.
    """

    option: str
    label: str
    value: re.Pattern[str]
    possible: str

    @property
    def annotation(self) -> str:
        return f"kaito.sh/{self.option.replace('_', '-')}"

    def read(self, text: str) -> tuple[str, ...]:
        """Returns the values of a comma-separated text, none if one of them is not possible."""
        values = tuple(dict.fromkeys(value.strip() for value in text.split(",")))
        return values if all(map(self.value.fullmatch, values)) else ()

    def fault(self, text: str) -> str:
        return f"must be {self.possible}, got '{text}'"


_CHOICES: Final = (
    _Choice(
        "capacity_type",
        CAPACITY_TYPE,
        re.compile("on-demand|spot|reserved"),
        "on-demand, spot or reserved, or several separated by commas",
    ),
    _Choice(
        "zones",
        ZONE,
        re.compile("[a-z0-9]([-_.a-z0-9]{0,61}[a-z0-9])?", re.ASCII | re.IGNORECASE),
        "names of zones separated by commas",
    ),
    _Choice("architectures", ARCHITECTURE, re.compile("amd64|arm64"), "amd64 or arm64, or both separated by a comma"),
)


def option_variable(plugin: str, option: str) -> str:
    """Returns the environment variable that sets an option of a plugin."""
    return f"KAITO_PLUGIN_{plugin}__{option}".upper()


def chosen(plugin: str, options: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Returns what a plugin's options choose for all Workspaces.

    Raises:
        ConfigError: A value is not possible.
    """
    choices: dict[str, tuple[str, ...]] = {}
    for choice in _CHOICES:
        text = options.get(choice.option)
        if text is None:
            continue
        if not (values := choice.read(text)):
            raise ConfigError(f"{option_variable(plugin, choice.option)} {choice.fault(text)}")
        choices[choice.label] = values
    return choices


def annotated(annotations: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Returns what a Workspace's annotations choose.

    Raises:
        InvalidWorkspaceError: A value is not possible. The error lists all faults.
    """
    choices: dict[str, tuple[str, ...]] = {}
    faults: list[FieldError] = []
    for choice in _CHOICES:
        text = annotations.get(choice.annotation)
        if text is None:
            continue
        choices[choice.label] = choice.read(text)
        if not choices[choice.label]:
            faults.append(FieldError(f"metadata.annotations[{choice.annotation}]", choice.fault(text)))
    if faults:
        raise InvalidWorkspaceError(faults)
    return choices
