"""How families of models write tool calls and thoughts, as data. `openai.tool_reader` reads answers by it.

Which format a model uses is seen in its chat template, which teaches it the marks. A recipe may bring others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["PLAIN", "TOOL_FORMATS", "Thoughts", "ToolFormat", "find_format", "find_thoughts", "takes_tools"]


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a family of models writes its tool calls: JSON objects with a name and arguments, between marks.

    Attributes:
        name: The family's name.
        known_by: Texts of which the chat template of such a model has one; empty: any template.
        starts: Marks that calls follow.
        ends: Marks that calls end with; they are not part of the text.
        bare: Whether an answer that begins as a JSON object is a call too, if it names a tool that was offered.
        named: Whether the name stands in front of the arguments' JSON, not in it.
        opening: What a call that the request demands begins with. It becomes the end of the prompt.
        between: What stands between two such calls.
        closing: What stands after the last call.
        arguments: Key of the arguments in such a call.
        id_length: Length of the call ids that the chat template takes; 0 for any.
    """

    name: str
    known_by: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    bare: bool = False
    named: bool = False
    opening: str = ""
    between: str = "\n"
    closing: str = ""
    arguments: str = "arguments"
    id_length: int = 0

    @property
    def marks(self) -> tuple[str, ...]:
        """Every mark; where one is a special token of the tokenizer, its text must be kept."""
        return (*self.starts, *self.ends, *(("[ARGS]", "[CALL_ID]") if self.named else ()))


@dataclass(frozen=True, slots=True)
class Thoughts:
    """The marks around what a model thinks before it answers."""

    start: str
    end: str


#: For models whose chat template knows no tools: they are described to them in the system message.
PLAIN = ToolFormat("plain", bare=True)

#: The first that a template has a mark of is taken; "plain" is what remains.
TOOL_FORMATS = (
    ToolFormat(
        "hermes",  # Nous Hermes, Qwen 2.5 and 3, SmolLM3 and many others
        known_by=("<tool_call>",),
        starts=("<tool_call>",),
        ends=("</tool_call>",),
        opening="<tool_call>\n",
        between="\n</tool_call>\n<tool_call>\n",
        closing="\n</tool_call>",
    ),
    ToolFormat(
        "mistral-named",  # Mistral's tokenizers from version 11
        known_by=("[ARGS]",),
        starts=("[TOOL_CALLS]",),
        bare=True,
        named=True,
        id_length=9,
    ),
    ToolFormat(
        "mistral",
        known_by=("[TOOL_CALLS]",),
        starts=("[TOOL_CALLS]",),
        opening="[TOOL_CALLS][",
        between=", ",
        closing="]",
        id_length=9,
    ),
    ToolFormat(
        "phi-4-mini",
        known_by=("<|tool_call|>", "<|tool|>", "functools["),
        starts=("<|tool_call|>", "functools["),
        ends=("<|/tool_call|>",),
        opening="<|tool_call|>[",
        between=", ",
        closing="]<|/tool_call|>",
    ),
    ToolFormat(
        "llama-3",
        known_by=("<|python_tag|>", "<|start_header_id|>"),
        starts=("<|python_tag|>",),
        bare=True,
        between="; ",
        arguments="parameters",
    ),
)

_THOUGHTS = (Thoughts("<think>", "</think>"), Thoughts("[THINK]", "[/THINK]"))


def find_format(template: str, formats: Iterable[ToolFormat] = ()) -> ToolFormat:
    """Returns the format that a chat template teaches.

    Args:
        template: The template's text.
        formats: Those of the model's recipe, which go before the built-in ones.
    """
    candidates: list[ToolFormat] = [*formats, *(TOOL_FORMATS if takes_tools(template) else ())]
    for known in candidates:
        if not known.known_by or any(mark in template for mark in known.known_by):
            return known
    return PLAIN


def takes_tools(template: str) -> bool:
    """Returns whether a chat template shows the tools of a request to the model."""
    return "tools" in template


def find_thoughts(template: str) -> Thoughts | None:
    """Returns the marks of thoughts that a chat template has; None where it has none."""
    return next((marks for marks in _THOUGHTS if marks.end in template), None)
