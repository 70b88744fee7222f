"""Fields of records, members of Protocols and docstrings as Markdown, for `generate.py`."""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, get_args, get_origin

import pydantic

from kaito_core.api.docstrings import field_docs

__all__ = ["field_table", "members", "one_line_paragraphs"]

_SIGNS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


def one_line_paragraphs(text: str) -> str:
    """Returns a docstring with each paragraph on one line."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def field_table(record: type, meanings: Mapping[str, str] | None = None) -> str:
    """Returns a table of the fields of a record.

    Args:
        record: A dataclass or a pydantic model.
        meanings: What each field means; None: as the record's docstring has it.
    """
    docs = field_docs(record) if meanings is None else meanings
    rows = [f"| `{name}` | {kind} | {default} | {docs.get(name, '')} |" for name, kind, default in _fields(record)]
    return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows])


def _fields(record: type) -> Iterator[tuple[str, str, str]]:
    if issubclass(record, pydantic.BaseModel):
        for name, info in record.model_fields.items():
            limits = [
                f"{_SIGNS[key]} {getattr(part, key):g}"
                for part in info.metadata
                for key in _SIGNS
                if hasattr(part, key)
            ]
            kind = ", ".join([_type(info.annotation), *limits])
            yield name, kind, "required" if info.is_required() else _value(info.get_default(call_default_factory=True))
        return
    assert dataclasses.is_dataclass(record)
    for field in dataclasses.fields(record):
        factory, value = field.default_factory, field.default
        if factory is not dataclasses.MISSING:
            value = factory()
        yield field.name, _type(field.type), "required" if value is dataclasses.MISSING else _value(value)


def _type(annotation: object) -> str:
    text = re.sub(r"\b(?:\w+\.)+(\w)", r"\1", inspect.formatannotation(_plain(annotation)))
    return f"`{text}`".replace("|", "\\|")


def _plain(annotation: Any) -> Any:
    """Returns a type without what is annotated inside of it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _plain(arguments[0])
    return origin[tuple(map(_plain, arguments))] if origin in (dict, tuple) else annotation


def _value(value: object) -> str:
    if isinstance(value, pydantic.BaseModel) and value == type(value)():
        return f"`{type(value).__name__}()`"
    return f"`{value!r}`"


def members(protocol: type) -> Iterator[str]:
    """Yields the signature and the documentation of each member of a Protocol."""
    for name, member in vars(protocol).items():
        if name.startswith("_") or not (isinstance(member, property) or inspect.isfunction(member)):
            continue
        function = member.fget if isinstance(member, property) else member
        assert function is not None
        signature = re.sub(r"\b(?:\w+\.)+(\w)", r"\1", str(inspect.signature(function)).replace("(self, ", "("))
        signature = re.sub(r"'([A-Za-z][^']*)'", r"\1", signature.replace("(self)", "()"))
        if isinstance(member, property):
            head = f"{name}: {signature.partition(' -> ')[2]}"
        else:
            head = f"{'async ' * inspect.iscoroutinefunction(function)}def {name}{signature}"
        yield f"```python\n{head}\n```"
        yield _prose(inspect.getdoc(function) or "")


def _prose(doc: str) -> str:
    """Returns a docstring with its sections, such as Args, as lists."""
    head, *sections = re.split(r"^(\w+):\n", doc, flags=re.MULTILINE)
    parts = [one_line_paragraphs(head.strip())]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        entries = re.split(r"\n(?=\S)", textwrap.dedent(body).strip())
        parts.append(f"{title}:\n\n" + "\n".join(f"- {' '.join(entry.split())}" for entry in entries))
    return "\n\n".join(parts)
