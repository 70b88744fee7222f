"""Reads what a model writes: its thoughts, its text and its tool calls, piece by piece. Pure.

How a family of models writes them is data (`model.tool_formats`). What begins like a call and is none stays text.
"""

import re
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from kaito_runtime.model.tool_formats import Thoughts, ToolFormat
from kaito_runtime.openai.call_scanner import CallScanner
from kaito_runtime.openai.replies import CallPart
from kaito_runtime.openai.text import overlap

__all__ = ["AnswerReader", "Read", "ToolReader"]

_NAMED = re.compile(r"([\w.-]+)\s*(?:\[CALL_ID\]\s*[\w-]+\s*)?(?:\[ARGS\])?\s*(?=\{)")
_LONGEST_NAME = 200  # characters; what is longer is no call
_FENCE = re.compile(r"```\w*\s*\n")
_LONGEST_FENCE = 20
_SPACE = " \t\r\n"


@dataclass
class Read:
    """What a piece of an answer adds.

    Attributes:
        text: For "content".
        thoughts: For "reasoning_content".
        calls: Parts of tool calls.
    """

    text: str = ""
    thoughts: str = ""
    calls: list[CallPart] = field(default_factory=list)

    def __iadd__(self, other: "Read") -> "Read":
        self.text += other.text
        self.thoughts += other.thoughts
        self.calls += other.calls
        return self


class AnswerReader:
    """Splits an answer into thoughts, text and tool calls.

    Args:
        thoughts: The marks of thoughts; None: there are none.
        thinking: Whether the prompt has the first mark already.
        tools: Reads the tool calls; None: none were offered.
    """

    def __init__(self, thoughts: Thoughts | None, *, thinking: bool = False, tools: "ToolReader | None" = None) -> None:
        self._marks = thoughts
        self._state = "none" if thoughts is None else "thinking" if thinking else "start"
        self._thought = False  # something of the thoughts was returned
        self._held = ""
        self._tools = tools

    @property
    def complete(self) -> bool:
        """Whether nothing that follows is wanted: the only call is complete."""
        return self._tools is not None and self._tools.complete

    @property
    def called(self) -> bool:
        """Whether there was a call."""
        return self._tools is not None and self._tools.called

    def push(self, text: str) -> Read:
        """Returns what more text adds."""
        read = Read()
        self._pass_on(self._split(text, read), read)
        return read

    def flush(self) -> Read:
        """Returns the rest, at the end."""
        held, self._held = self._held, ""
        read = Read(thoughts=held.rstrip() if self._state == "thinking" else "")
        if self._state == "start":
            self._pass_on(held, read)
        if self._tools is not None:
            read += self._tools.flush()
        return read

    def _pass_on(self, text: str, read: Read) -> None:
        if self._tools is None:
            read.text += text
        elif text:
            read += self._tools.push(text)

    def _split(self, text: str, read: Read) -> str:
        """Takes the thoughts, and returns what is not part of them."""
        if self._marks is None:
            return text
        text, self._held = self._held + text, ""
        if self._state == "start":
            begun = text.lstrip()
            if self._marks.start.startswith(begun[: len(self._marks.start)]):
                if len(begun) < len(self._marks.start):
                    self._held = text
                    return ""
                self._state, text = "thinking", begun[len(self._marks.start) :]
            else:
                self._state = "answer"
        if self._state == "thinking":
            if not self._thought:
                text = text.lstrip()
            thoughts, mark, rest = text.partition(self._marks.end)
            if mark:
                read.thoughts, self._state, text = thoughts.rstrip(), "gap", rest
            else:
                kept = overlap(text, self._marks.end)
                read.thoughts = text[: len(text) - kept].rstrip()
                self._held = text[len(read.thoughts) :]
                text = ""
            self._thought = self._thought or bool(read.thoughts)
        if self._state == "gap":  # the lines between the thoughts and the answer belong to neither
            text = text.lstrip()
            self._state = "answer" if text else "gap"
        return text


class ToolReader:
    """Finds the tool calls in a model's text.

    Args:
        form: How the model writes them.
        names: Names of the tools that were offered.
        inside: Whether the prompt ends with the mark of a call.
        single: Whether one call is all that is wanted.
        new_id: Returns the id of another call.

    Attributes:
        called: Whether there was a call.
        complete: Whether the only call that is wanted is complete.
    """

    def __init__(
        self,
        form: ToolFormat,
        names: Collection[str],
        *,
        inside: bool = False,
        single: bool = False,
        new_id: Callable[[], str] | None = None,
    ) -> None:
        self._form = form
        self._names = names
        self._single = single
        self._new_id = new_id or (lambda: new_call_id(form))
        self._at_start = form.bare and not inside
        self._bare = False  # the calls have no mark around them
        self._buffer = ""
        self._raw = ""  # what was taken for the beginning of a call
        self._state = self._between if inside else self._text
        self._scanner: CallScanner | None = None
        self._count = 0
        self._begun = False  # the call that is being read has been announced
        self._sent = 0  # characters of its arguments
        self._read = Read()
        self.complete = False

    @property
    def called(self) -> bool:
        """Whether there was a call."""
        return self._count > 0 or self._begun

    def push(self, text: str) -> Read:
        """Returns what more text adds."""
        self._buffer += text
        self._read = Read()
        while not self.complete and self._state():
            pass
        return self._read

    def flush(self) -> Read:
        """Returns the rest, at the end: what was never a call is text."""
        self._read = Read()
        if self.complete or self._begun:
            return self._read
        rest = self._raw + ("" if self._scanner is None else self._scanner.text) + self._buffer
        if not (self.called and (self._state != self._text or not rest.strip())):
            self._read.text = rest
        self._raw = self._buffer = ""
        return self._read

    # Each state takes from the buffer what it understands and returns whether another may go on.

    def _text(self) -> bool:
        if self._at_start:
            return self._start()
        found = [(cut, mark) for mark in self._form.starts if (cut := self._buffer.find(mark)) >= 0]
        if found:
            cut, mark = min(found)
            self._read.text += self._buffer[:cut].rstrip(_SPACE)
            self._raw, self._buffer = mark, self._buffer[cut + len(mark) :]
            self._bare, self._state = False, self._between
            return True
        kept = max((overlap(self._buffer, mark) for mark in self._form.starts), default=0)
        # Space in front of a call is not part of the text.
        shown = self._buffer[: len(self._buffer) - kept].rstrip(_SPACE) if self._form.starts else self._buffer
        self._read.text += shown
        self._buffer = self._buffer[len(shown) :]
        return False

    def _start(self) -> bool:
        """Looks whether the answer begins as a call without a mark, perhaps in a block of Markdown or in a list."""
        begun = self._buffer.lstrip()
        if "```".startswith(begun[:3]) and (fence := _FENCE.match(begun)):
            begun = begun[fence.end() :].lstrip()
        elif "```".startswith(begun[:3]) and len(begun) < _LONGEST_FENCE and "\n" not in begun:
            return False
        listed = begun.removeprefix("[").lstrip() if begun.startswith("[") else begun
        if not listed:
            return False
        self._at_start = False
        if listed.startswith("{"):
            taken = len(self._buffer) - len(listed)
            self._raw, self._buffer = self._buffer[:taken], self._buffer[taken:]
            self._bare, self._state = True, self._between
        return True

    def _between(self) -> bool:
        """Stands where a call, or the end of the calls, may follow."""
        begun = self._buffer.lstrip(_SPACE + ",;") if self._raw or self._count else self._buffer.lstrip(_SPACE)
        if not begun:
            return False
        if begun.startswith("{"):
            return self._begin(CallScanner(), begun)
        if self._form.named and (match := _NAMED.match(begun)):
            self._raw += begun[: match.end()]
            return self._begin(CallScanner(match[1]), begun[match.end() :])
        if self._form.named and "{" not in begun and len(begun) < _LONGEST_NAME and re.match(r"[\w.-]", begun):
            return False
        for mark in (*self._form.ends, *self._form.starts):
            if begun.startswith(mark):
                self._raw, self._buffer = ("" if self._count else self._raw + mark), begun[len(mark) :]
                if mark in self._form.ends:
                    self._state = self._text
                return True
            if mark.startswith(begun):
                return False
        if begun[0] in "[]":
            self._raw += begun[0]
            self._buffer = begun[1:]
            return True
        if self._bare and "```".startswith(begun[:3]):
            if len(begun) < len("```"):
                return False
            begun = begun[3:].lstrip(_SPACE)
        self._buffer = begun if self._count else self._raw + self._buffer
        return self._give_up()

    def _begin(self, scanner: CallScanner, rest: str) -> bool:
        self._scanner, self._buffer, self._state = scanner, rest, self._call
        self._begun, self._sent = False, 0
        return True

    def _call(self) -> bool:
        scanner = self._scanner
        assert scanner is not None
        rest = scanner.push(self._buffer)
        self._buffer = ""
        refused = self._bare and (scanner.foreign or (scanner.name and scanner.name not in self._names))
        if refused or (scanner.done and not scanner.name):
            self._buffer = ("" if self._count else self._raw) + scanner.text + rest
            return self._give_up()
        if not scanner.name:
            return False
        if not self._begun:
            self._begun = True
            self._raw = ""
            self._read.calls.append(CallPart(self._count, "", self._new_id(), scanner.name))
        if gained := scanner.arguments[self._sent :]:
            self._sent += len(gained)
            self._read.calls.append(CallPart(self._count, gained))
        if not scanner.done:
            return False
        self._count += 1
        self._begun, self._scanner = False, None
        self._buffer, self._state = rest, self._between
        self.complete = self._single
        return True

    def _give_up(self) -> bool:
        """Goes on with the buffer as text."""
        self._raw, self._scanner, self._at_start = "", None, False
        shown = self._buffer[:1]  # else its first character would be taken for a mark again
        self._read.text += shown
        self._buffer, self._state = self._buffer[1:], self._text
        return bool(self._buffer)


def new_call_id(form: ToolFormat) -> str:
    """Returns an id for a call, as the model's chat template takes it."""
    made = uuid.uuid4().hex
    return made[: form.id_length] if form.id_length else f"call_{made[:24]}"
