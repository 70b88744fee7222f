"""Text of a growing sequence: from tokens to pieces of text, and stop strings. Pure."""

from collections.abc import Callable, Sequence

__all__ = ["INCOMPLETE", "StopStrings", "TextStream", "overlap"]

INCOMPLETE = "\ufffd"  # what a decoder writes for a character whose last bytes are in the next token
_WINDOW = 8  # tokens that are decoded again with each new one, for the spaces that a decoder writes between words


class TextStream:
    """Turns tokens into text as they come. The pieces joined are the text of all tokens.

    Args:
        decode: Returns the text of a sequence of tokens.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._start = 0  # of the window that is decoded again
        self._done = 0  # tokens whose text was returned
        self._text = ""  # of those in the window

    def push(self, token: int) -> str:
        """Returns the text that another token completes."""
        self._tokens.append(token)
        text = self._decode(self._tokens[self._start :])
        if text.endswith(INCOMPLETE):
            return ""
        gained = text[len(self._text) :]
        if len(self._tokens) - self._start > _WINDOW:
            self._start = self._done
            text = self._decode(self._tokens[self._start :])
        self._done, self._text = len(self._tokens), text
        return gained

    def flush(self) -> str:
        """Returns the rest at the end, incomplete characters included."""
        text = self._decode(self._tokens[self._start :])
        gained = text[len(self._text) :]
        self._done, self._text = len(self._tokens), text
        return gained


class StopStrings:
    """Cuts text at the first stop string, and holds back text that may be the beginning of one.

    Args:
        stops: The strings; empty ones are ignored.

    Attributes:
        found: Whether the text was cut.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Returns the text that is certain to be shown; nothing after a stop string."""
        if self.found:
            return ""
        text = self._held + text
        cuts = [cut for stop in self._stops if (cut := text.find(stop)) >= 0]
        if cuts:
            self.found, self._held = True, ""
            return text[: min(cuts)]
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        shown, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return shown

    def flush(self) -> str:
        """Returns the text that was held back, at the end."""
        held, self._held = self._held, ""
        return held


def overlap(text: str, stop: str) -> int:
    """Returns the length of the longest suffix of `text` that is a prefix of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
