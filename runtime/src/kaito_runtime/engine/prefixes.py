"""Which requests share keys and values: those whose tokens begin alike, under the same adapters at the same strengths.

transformers finds blocks of its cache again by a hash over their tokens alone, so that another adapter's keys and
values would be taken for one's own. Each block's hash goes on from that of the block before it; it is enough, then, to
put another number in the place of the first token, one that stands for token and adapters together.
"""

from collections.abc import Collection, Hashable
from functools import lru_cache
from itertools import count
from types import SimpleNamespace
from typing import Any

__all__ = ["Prefixes"]

_REMEMBERED = 4096  # pairs of first token and adapters; one that is forgotten is computed anew


class Prefixes:
    """Salts the search for shared prefixes in one paged cache of transformers.

    Args:
        cache: Its `search_prefix_match` and `mark_complete_blocks` are replaced.

    Attributes:
        asked: Tokens of all prompts that were looked up.
        found: Those of them that did not have to be computed.
    """

    def __init__(self, cache: Any) -> None:
        self.asked = self.found = 0
        self._cache = cache
        self._salts: dict[str, Hashable] = {}
        numbers = count(1)
        # Negative, as no token is. Hashed as 32 bits, of which a server uses up half in years.
        self._stand_in = lru_cache(_REMEMBERED)(lambda salt, token: -next(numbers))
        self._search, self._mark = cache.search_prefix_match, cache.mark_complete_blocks
        cache.search_prefix_match, cache.mark_complete_blocks = self._find, self._register

    def expect(self, request_id: str, salt: Hashable) -> None:
        """Says under which adapters a request will be computed; None is the base model."""
        if salt is not None:
            self._salts[request_id] = salt

    def forget(self, request_ids: Collection[str], *, spoilt: bool) -> None:
        """Ends the care for requests; nobody takes over the keys and values of `spoilt` ones that run."""
        for request_id in request_ids:
            self._salts.pop(request_id, None)
            if spoilt:
                self._cache.free_blocks(request_id, no_cache=True)

    @property
    def spare_bytes(self) -> int:
        """Bytes that hold nothing but what might be shared, free to whoever needs them."""
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
