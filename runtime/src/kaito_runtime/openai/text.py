"""Text of a growing sequence: from tokens to pieces of text, and stop strings. Pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["INCOMPLETE", "AnswerText", "StopStrings", "TextRules", "TextStream", "overlap"]

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
        keep: Whether the stop string itself is shown.

    Attributes:
        found: Whether the text was cut.
    """

    def __init__(self, stops: Sequence[str], *, keep: bool = False) -> None:
        self._stops = [stop for stop in stops if stop]
        self._keep = keep
        self._held = ""
        self._hidden: list[bool] = []  # of each character held
        self.found = False

    def push(self, text: str, *, hidden: bool = False) -> str:
        """Returns the text that is certain to be shown; nothing after a stop string.

        Args:
            hidden: The text counts for stop strings and is never shown, as that of special tokens.
        """
        if self.found:
            return ""
        if not self._stops:
            return "" if hidden else text
        text, masked = self._held + text, self._hidden + [hidden] * len(text)
        cuts = [(cut, stop) for stop in self._stops if (cut := text.find(stop)) >= 0]
        if cuts:
            cut, stop = min(cuts, key=lambda found: found[0])
            self.found, self._held, self._hidden = True, "", []
            return _shown(text, masked, cut + len(stop) if self._keep else cut)
        certain = len(text) - max((overlap(text, stop) for stop in self._stops), default=0)
        self._held, self._hidden = text[certain:], masked[certain:]
        return _shown(text, masked, certain)

    def flush(self) -> str:
        """Returns the text that was held back, at the end."""
        held = _shown(self._held, self._hidden, len(self._held))
        self._held, self._hidden = "", []
        return held


def _shown(text: str, hidden: Sequence[bool], size: int) -> str:
    """Returns what is not hidden among the first characters."""
    return "".join(character for character, out in zip(text[:size], hidden, strict=False) if not out)


def overlap(text: str, stop: str) -> int:
    """Returns the length of the longest suffix of `text` that is a prefix of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)


@dataclass(frozen=True, slots=True)
class TextRules:
    """How the tokens of an answer become its text.

    Attributes:
        stops: Stop strings.
        keep_stop: Whether what ends the answer, a stop string or an end token, is part of its text.
        keep_special: Whether the text of special tokens is.
        min_tokens: Tokens before which no stop string counts.
    """

    stops: Sequence[str] = ()
    keep_stop: bool = False
    keep_special: bool = False
    min_tokens: int = 0


class AnswerText:
    """The text of one choice, from its tokens.

    Args:
        decode: Returns the text of tokens, with the text of the special tokens that it is given.
        special: The text of each special token.
        kept: Special tokens whose text is kept whatever the rules say.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int], Collection[int]], str],
        special: Mapping[int, str],
        rules: TextRules = TextRules(),
        kept: Collection[int] = (),
    ) -> None:
        shown = special.keys() if rules.keep_special else kept
        self._text = TextStream(lambda tokens: decode(tokens, shown))
        self._stops = StopStrings(rules.stops, keep=rules.keep_stop)
        self._hidden = {token: text for token, text in special.items() if token not in shown}
        self._rules = rules
        self._tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the text."""
        return self._stops.found

    def push(self, token: int, *, ends: bool = False, last: bool = False) -> tuple[str, str]:
        """Adds a token.

        Args:
            ends: Whether it ends the answer, and is not part of it unless the rules say so.
            last: Whether no other follows.

        Returns:
            The text that it completes, and the text that is certain to be shown now.
        """
        self._tokens += 1
        gained = "" if ends and not self._rules.keep_stop else self._text.push(token)
        if last:
            gained += self._text.flush()
        if self._tokens <= self._rules.min_tokens:
            return gained, gained
        shown = self._stops.push(gained)
        if token in self._hidden:
            shown += self._stops.push(self._hidden[token], hidden=True)
        if last:
            shown += self._stops.flush()
        return gained, shown
