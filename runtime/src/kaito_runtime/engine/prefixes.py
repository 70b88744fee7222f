"""Shared prefixes: requests reuse the keys and values of equal first tokens, under equal adapters and strengths only.

transformers finds blocks of its cache by a hash of their tokens alone, and would reuse keys and values of other
adapters. The hash of a block continues that of the block before it. So it is enough to replace the first token, for the
hash, by a number that stands for that token and the adapters.
"""

from collections.abc import Collection, Hashable
from functools import lru_cache
from itertools import count
from types import SimpleNamespace
from typing import Any

__all__ = ["Prefixes"]

_REMEMBERED = 4096  # pairs of first token and adapters; prefixes of a forgotten pair are computed again


class Prefixes:
    """Salts the search for shared prefixes in a paged cache of transformers.

    Args:
        cache: The cache; its `search_prefix_match` and `mark_complete_blocks` are replaced.

    Attributes:
        asked: Prompt tokens that were looked up.
        found: Prompt tokens that were found, and not computed.
    """

    def __init__(self, cache: Any) -> None:
        self.asked = self.found = 0
        self._cache = cache
        self._salts: dict[str, Hashable] = {}
        numbers = count(1)
        # Negative, to differ from every token. Hashed as 32 bits: negative numbers last for years of requests.
        self._stand_in = lru_cache(_REMEMBERED)(lambda salt, token: -next(numbers))
        self._search, self._mark = cache.search_prefix_match, cache.mark_complete_blocks
        cache.search_prefix_match, cache.mark_complete_blocks = self._find, self._register

    def expect(self, request_id: str, salt: Hashable) -> None:
        """Sets the salt of a request before it is queued; None is the base model."""
        if salt is not None:
            self._salts[request_id] = salt

    def forget(self, request_ids: Collection[str], *, spoilt: bool) -> None:
        """Forgets requests. Where `spoilt`, no later request reuses their keys and values."""
        for request_id in request_ids:
            self._salts.pop(request_id, None)
            if spoilt:
                self._cache.free_blocks(request_id, no_cache=True)

    @property
    def spare_bytes(self) -> int:
        """Bytes of finished requests that are kept to be shared, and free for any request that needs them."""
        return sum(
            len(allocator.ledger.cached_blocks) * allocator.bytes_per_block
            for allocator in self._cache.cache_allocators.values()
        )

    def _salted(self, request_id: str, tokens: list[int]) -> list[int]:
        salt = self._salts.get(request_id)
        return tokens if salt is None or not tokens else [self._stand_in(salt, tokens[0]), *tokens[1:]]

    def _find(self, request_id: str, prompt: list[int]) -> int:
        found: int = self._search(request_id, self._salted(request_id, prompt))
        self.asked += len(prompt)
        self.found += found
        return found

    def _register(self, state: Any, complete_blocks: dict[str, int]) -> None:
        if not complete_blocks:
            return
        salted = SimpleNamespace(
            request_id=state.request_id,
            status=state.status,
            initial_tokens=self._salted(state.request_id, state.initial_tokens),
            generated_tokens=state.generated_tokens,
        )
        self._mark(salted, complete_blocks)
