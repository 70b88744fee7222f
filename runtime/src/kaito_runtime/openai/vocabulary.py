"""The bytes of every token of a tokenizer, and the tokens that must not come where texts are banned."""

from __future__ import annotations

import bisect
import re
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["BannedTexts", "Vocabulary"]

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORD_START = "\u2581"  # SentencePiece's mark of a space


class Vocabulary:
    """The tokens of a transformers tokenizer. Threads may share it; what is large is made at the first use."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._known: dict[int, bytes] = {}

    @cached_property
    def special(self) -> Mapping[int, str]:
        """The text of each special token; decoding leaves them out."""
        added = getattr(self._tokenizer, "added_tokens_decoder", {})
        return {token: str(entry.content) for token, entry in added.items() if entry.special}

    def token_bytes(self, token: int) -> bytes:
        """Returns the bytes of a token; none for one that the tokenizer does not have."""
        if token not in self._known:
            self._known[token] = self._read(token)
        return self._known[token]

    def bans(self, words: Sequence[str]) -> BannedTexts:
        """Returns what keeps texts out of an answer."""
        with self._lock:
            pieces = self._pieces
        return BannedTexts(pieces, [word.encode() for word in dict.fromkeys(words)])

    @cached_property
    def _pieces(self) -> _Pieces:
        found = [self.token_bytes(token) for token in range(len(self._tokenizer))]
        return _Pieces([b"" if token in self.special else piece for token, piece in enumerate(found)])

    @cached_property
    def _letters(self) -> Mapping[str, int]:
        """The byte of each letter, where tokens are written byte by byte as in GPT-2; else empty."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None or backend.decoder is None:
            return {}
        return _byte_letters() if '"ByteLevel"' in backend.decoder.__getstate__().decode() else {}

    @cached_property
    def _added(self) -> Mapping[int, str]:
        return {token: str(entry.content) for token, entry in self._tokenizer.added_tokens_decoder.items()}

    def _read(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if piece is None:
            return b""
        if self._letters:
            values = [self._letters.get(letter) for letter in piece]
            return piece.encode() if None in values else bytes(value for value in values if value is not None)
        if byte := _BYTE.fullmatch(piece):
            return bytes([int(byte[1], 16)])
        return str(piece).replace(_WORD_START, " ").encode()


class _Pieces:
    """The pieces of text that tokens stand for, to be searched."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        order = sorted(range(len(pieces)), key=lambda token: pieces[token])
        self._sorted = [pieces[token] for token in order]
        self._tokens = np.array(order, np.int64)
        self._longest = max(map(len, pieces), default=0)

    def of(self, token: int) -> bytes:
        """Returns the text of a token; nothing for one that the tokenizer does not have."""
        return self._pieces[token] if token < len(self._pieces) else b""

    def starting(self, text: bytes) -> NDArray[np.int64]:
        """Returns the tokens that start with a text."""
        if len(text) > self._longest:
            return self._tokens[:0]
        first = bisect.bisect_left(self._sorted, text)
        last = bisect.bisect_left(self._sorted, text + b"\xff" * self._longest)
        return self._tokens[first:last]

    def having(self, text: bytes) -> NDArray[np.int64]:
        """Returns the tokens that have a text somewhere."""
        if len(text) > self._longest:
            return self._tokens[:0]
        return self._tokens[[place for place, piece in enumerate(self._sorted) if text in piece]]


class BannedTexts:
    """Keeps texts out of an answer, however they are cut into tokens: bans each token that would complete one.

    Args:
        words: The texts; none is empty.
    """

    def __init__(self, pieces: _Pieces, words: Sequence[bytes], parent: BannedTexts | None = None) -> None:
        self._pieces = pieces
        self._words = words
        self._always: NDArray[np.int64] = (
            parent._always
            if parent is not None
            else np.unique(np.concatenate([pieces.having(word) for word in words] or [np.empty(0, np.int64)]))
        )
        self._longest = max(map(len, words), default=0)
        self._tail = b""

    def start(self) -> BannedTexts:
        """Returns the first state, for another sequence."""
        return BannedTexts(self._pieces, self._words, self)

    def banned(self) -> NDArray[np.int64]:
        """Returns the tokens that would complete a text."""
        found = [self._always]
        for word in self._words:
            for size in range(1, min(len(word), len(self._tail) + 1)):
                if self._tail.endswith(word[:size]):
                    found.append(self._pieces.starting(word[size:]))
        return found[0] if len(found) == 1 else np.unique(np.concatenate(found))

    def push(self, token: int) -> None:
        """Adds a token."""
        piece = self._pieces.of(token)
        self._tail = (self._tail + piece)[-self._longest :]


def _byte_letters() -> dict[str, int]:
    """Returns the byte that each letter stands for in GPT-2's alphabet.

    Source: https://github.com/openai/gpt-2, `bytes_to_unicode`: printable bytes are themselves, others are moved up.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in printable}
    moved = (byte for byte in range(256) if byte not in set(printable))
    return letters | {chr(256 + place): byte for place, byte in enumerate(moved)}
