"""One tool call as JSON, read while it is written: its name first, then its arguments in pieces. Pure."""

import json
from typing import Any

__all__ = ["CallScanner"]

_NAMES = ("name", "function")
_ARGUMENTS = ("arguments", "parameters")
_KEYS = {*_NAMES, *_ARGUMENTS, "type", "id"}


class CallScanner:
    """Reads a JSON object with a name and arguments, as models write it. What is no JSON is noticed at its end.

    Args:
        name: The name, where the object is the arguments alone; "" where the object has both.

    Attributes:
        text: All that was read.
        name: The call's name; "" until it is known.
        done: Whether the object is complete.
        foreign: Whether a key that no call has stands in front of its name.
    """

    def __init__(self, name: str = "") -> None:
        self._alone = bool(name)
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._key = ""
        self._start: int | None = None  # of the string or the value that is being read, at depth 1
        self._after_colon = False
        self._values: dict[str, str] = {}
        self.text = ""
        self.name = name
        self.done = False
        self.foreign = False

    def push(self, text: str) -> str:
        """Reads on, and returns what follows the object."""
        offset = len(self.text)
        self.text += text
        for position in range(offset, len(self.text)):
            self._read(self.text[position], position)
            if self.done:
                rest = self.text[position + 1 :]
                self.text = self.text[: position + 1]
                self._finish()
                return rest
        return ""

    @property
    def arguments(self) -> str:
        """The arguments' JSON so far; at the end, "{}" where there are none."""
        if self._alone:
            return self.text
        for key in _ARGUMENTS:
            if key in self._values:
                return _unpacked(self._values[key])
            if self._key == key and self._start is not None and self.text[self._start] == "{":
                return self.text[self._start :]
        return "{}" if self.done else ""

    def _read(self, character: str, position: int) -> None:
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
                if self._depth == 1:
                    self._end_value(position + 1)
            return
        if self._depth == 1 and self._start is None and (character == '"' or self._begins_value(character)):
            self._start = position
        if character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
            if self._depth == 1:
                self._end_value(position + 1)
            elif self._depth <= 0:
                self._end_value(position)
                self.done = True
        elif self._depth == 1 and character == ",":
            self._end_value(position)
            self._after_colon, self._key = False, ""
        elif self._depth == 1 and character == ":":
            self._after_colon = True

    def _begins_value(self, character: str) -> bool:
        return self._after_colon and not character.isspace() and character not in ":,}]"

    def _end_value(self, end: int) -> None:
        if self._start is None:
            return
        value, self._start = self.text[self._start : end].strip(), None
        if not self._after_colon:
            self._key = str(_loaded(value) or "")
            self.foreign = self.foreign or not (self.name or self._key in _KEYS)
            return
        self._values[self._key] = value
        if self._key in _NAMES and not self.name and isinstance(name := _loaded(value), str):
            self.name = name

    def _finish(self) -> None:
        """Takes what OpenAI's own form has one level deeper: {"type": "function", "function": {"name": ...}}."""
        if self._alone or self.name:
            return
        inner = _loaded(self._values.get("function", ""))
        if isinstance(inner, dict) and isinstance(inner.get("name"), str):
            self.name = inner["name"]
            self._values["arguments"] = json.dumps(next((inner[key] for key in _ARGUMENTS if key in inner), {}))


def _unpacked(value: str) -> str:
    """Returns arguments that were written as a string that has JSON in it; others as they are."""
    loaded = _loaded(value)
    if isinstance(loaded, str):
        return loaded or "{}"
    return "{}" if value == "null" else value


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
