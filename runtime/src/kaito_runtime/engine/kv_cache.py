"""Blocks of the key-value cache: who holds each, and which hold prefixes that may be shared. Numbers only, no tensors.

Their memory is in `packing`; which request gets blocks, and when, is decided in `scheduler`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Hashable, Sequence

__all__ = ["BlockPool"]

_Key = tuple[Hashable, tuple[int, ...]]
"""(what is before a block, its tokens). Before the first is ("salt", salt), before others the content's number."""


_LOOKED_AT = 4096  # blocks, for a place where a sequence can grow


class BlockPool:
    """Blocks of fixed size, counted by reference.

    A full block of a request may be published: then later requests with the same tokens from the start, and the same
    salt, share it. Content is compared itself, not by hash, so no two contents are ever taken for one another. A
    published block that nobody holds is kept until its memory is needed, the longest unused first.

    Args:
        blocks: How many there are.
        block_tokens: Tokens of one block.
    """

    def __init__(self, blocks: int, block_tokens: int) -> None:
        self.blocks = blocks
        self.block_tokens = block_tokens
        self._references = [0] * blocks
        # Taken from the end, so in rising order: a sequence's blocks often lie side by side, and need not be gathered.
        self._free = dict.fromkeys(reversed(range(blocks)))
        self._kept: dict[int, None] = {}  # published and held by nobody, the longest unused first
        self._found_by: dict[_Key, int] = {}
        self._keys: dict[int, _Key] = {}
        self._contents: dict[int, int] = {}  # by published block; no number comes twice
        self._numbers = itertools.count()
        self._next = 0  # where the next sequence starts, so that the one before it can grow

    @property
    def available(self) -> int:
        """Number of blocks that can be taken."""
        return len(self._free) + len(self._kept)

    @property
    def held(self) -> int:
        """Number of blocks that somebody holds."""
        return self.blocks - self.available

    def take(self, count: int, after: int | None = None, room: int = 0) -> list[int]:
        """Returns blocks that nobody else holds.

        Args:
            count: At most `available`.
            after: The block beside which they should lie, if it can be had; None for the start of a sequence.
            room: Blocks that the sequence may come to need; it starts where so many are free side by side, if it can.

        Raises:
            ValueError: There are not so many.
        """
        if count > self.available:
            raise ValueError(f"{count} blocks are needed, {self.available} are free")
        if after is None:
            after = self._start(max(count, room))
        taken: list[int] = []
        for _ in range(count):
            if after is not None and after + 1 in self._free:
                after += 1
                del self._free[after]
            elif self._free:
                after = self._free.popitem()[0]
            else:
                after = next(iter(self._kept))
                del self._kept[after]
                self._withdraw(after)
            self._references[after] = 1
            taken.append(after)
        return taken

    def release(self, blocks: Sequence[int], spoilt: Collection[int] = ()) -> None:
        """Gives up one hold of each block.

        Args:
            blocks: In the order of the request's tokens.
            spoilt: Those that nobody may find any more.
        """
        for block in spoilt:
            self._withdraw(block)
        for block in reversed(blocks):  # ends of sequences first: beginnings are worth more to others
            self._references[block] -= 1
            if self._references[block] == 0:
                (self._kept if block in self._keys else self._free)[block] = None

    def find(self, salt: Hashable, tokens: Sequence[int]) -> tuple[list[int], Hashable]:
        """Takes hold of the published blocks that `tokens` begin with, but never of all tokens.

        Args:
            salt: Only equal salts share blocks.
            tokens: At least one is left, since the last token must be computed to be continued.

        Returns:
            The blocks, and what is before the next one, for `publish`.
        """
        found: list[int] = []
        before: Hashable = ("salt", salt)
        size = self.block_tokens
        for start in range(0, (len(tokens) - 1) // size * size, size):
            block = self._found_by.get((before, tuple(tokens[start : start + size])))
            if block is None:
                break
            if self._references[block] == 0:
                del self._kept[block]
            self._references[block] += 1
            before = self._contents[block]
            found.append(block)
        return found, before

    def publish(self, block: int, before: Hashable, tokens: Sequence[int]) -> Hashable:
        """Lets others find a full block, unless they find another one with the same content.

        Args:
            block: Held, and never written again.
            before: What is before it: the result for the block before, or of `find`.
            tokens: Its tokens.

        Returns:
            What is before the next block.
        """
        key = (before, tuple(tokens))
        if (known := self._found_by.get(key)) is not None:
            return self._contents[known]
        self._found_by[key] = block
        self._keys[block] = key
        self._contents[block] = content = next(self._numbers)
        return content

    def is_published(self, block: int) -> bool:
        """Whether others may find the block."""
        return block in self._keys

    def references(self, block: int) -> int:
        """How many hold the block."""
        return self._references[block]

    def _start(self, room: int) -> int | None:
        """Returns the block before `room` free ones that lie side by side; None if there are none near."""
        run = 0
        for place in range(self._next, self._next + min(self.blocks, _LOOKED_AT)):
            block = place % self.blocks
            run = run + 1 if block in self._free and (block or not run) else int(block in self._free)
            if run == room:
                self._next = (block + 1) % self.blocks
                return block - room
        return None

    def _withdraw(self, block: int) -> None:
        if (key := self._keys.pop(block, None)) is not None:
            del self._found_by[key], self._contents[block]
