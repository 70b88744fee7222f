"""The base of every part of a Workspace: frozen, strict about names, and a blank field is an absent one."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic.alias_generators import to_camel

from kaito_core.api.docstrings import describe

__all__ = ["Document"]


def _without_blanks(document: object) -> object:
    """Returns a mapping without its nulls: a field left blank in YAML is absent, as in the Kubernetes API.

    A blank strength stays and is refused: nobody writes the word to ask for the default.
    """
    if not isinstance(document, Mapping):
        return document
    return {key: value for key, value in document.items() if value is not None or key == "strength"}


class Document(BaseModel):
    """Part of a document, under the names that Kubernetes objects use."""

    # by_name is off: "pull_secrets" for "pullSecrets" would work here and be refused by the cluster.
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, json_schema_extra=describe)

    _blanks = model_validator(mode="before")(_without_blanks)
