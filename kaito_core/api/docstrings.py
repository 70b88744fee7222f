"""What the docstrings of records say about their fields, for JSON schemas, the CRD and the reference."""

import inspect
import re
from typing import Any

from pydantic import BaseModel

__all__ = ["describe", "field_docs", "flowed", "summary"]

_SECTION = re.compile(r"[A-Z]\w*:$")
_FIELD = re.compile(r"(\w+): (.*)")


def summary(documented: object) -> str:
    """Returns a docstring's part before its first section ("Attributes:", "Raises:", ...), paragraphs apart."""
    lines = (inspect.getdoc(documented) or "").splitlines()
    end = next((index for index, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    return "\n".join(lines[:end]).strip()


def flowed(text: str) -> str:
    """Returns a text with each of its paragraphs on one line."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def field_docs(record: type) -> dict[str, str]:
    """Returns the descriptions in the section "Attributes:" of a class and of its bases, by field."""
    docs: dict[str, str] = {}
    for base in reversed(record.__mro__):
        docs |= _attributes(inspect.cleandoc(base.__doc__ or "").splitlines())
    return docs


def _attributes(lines: list[str]) -> dict[str, str]:
    docs: dict[str, str] = {}
    if "Attributes:" not in lines:
        return docs
    for line in lines[lines.index("Attributes:") + 1 :]:
        if _SECTION.match(line):
            break
        text = line.strip()
        if line.startswith("     ") and docs:  # deeper than a field's own line: it goes on
            docs[next(reversed(docs))] += f" {text}"
        elif match := _FIELD.fullmatch(text):
            docs[match[1]] = match[2]
    return docs


def describe(schema: dict[str, Any], record: type[BaseModel]) -> None:
    """Adds a record's docstring to its JSON schema and takes out pydantic's titles; meant for `json_schema_extra`."""
    docs, names = field_docs(record), {info.alias: name for name, info in record.model_fields.items()}
    schema.pop("title", None)
    schema["description"] = flowed(summary(record))
    for key, field in schema.get("properties", {}).items():
        field.pop("title", None)
        if text := docs.get(names.get(key, key)):
            field["description"] = text
