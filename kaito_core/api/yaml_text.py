"""Objects as YAML text for people and `kubectl apply -f -`."""

from collections.abc import Sequence
from typing import Any

import yaml

__all__ = ["dump_yaml"]


class _Dumper(yaml.SafeDumper):
    """Repeats shared parts instead of using anchors, which some tools do not read."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dump_yaml(documents: Sequence[Any]) -> str:
    """Returns documents as one YAML stream: keys in their order, strings of several lines as blocks."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
