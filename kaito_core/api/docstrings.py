"""What the docstrings of records say about their fields, for schemas and the reference."""

import inspect
import re

__all__ = ["field_docs", "summary"]

_SECTION = re.compile(r"[A-Z]\w*:$")
_FIELD = re.compile(r"(\w+): (.*)")


def summary(documented: object) -> str:
    """Returns a docstring's part before its first section ("Attributes:", "Raises:", ...), paragraphs apart."""
    lines = (inspect.getdoc(documented) or "").splitlines()
    end = next((index for index, line in enumerate(lines) if _SECTION.match(line)), len(lines))
    return "\n".join(lines[:end]).strip()


def field_docs(record: type) -> dict[str, str]:
    """Returns the descriptions in the section "Attributes:" of a class, by field."""
    lines = (inspect.getdoc(record) or "").splitlines()
    if "Attributes:" not in lines:
        return {}
    docs: dict[str, str] = {}
    for line in lines[lines.index("Attributes:") + 1 :]:
        if _SECTION.match(line):
            break
        text = line.strip()
        if line.startswith("     ") and docs:  # deeper than a field's own line: it goes on
            docs[next(reversed(docs))] += f" {text}"
        elif match := _FIELD.fullmatch(text):
            docs[match[1]] = match[2]
    return docs
