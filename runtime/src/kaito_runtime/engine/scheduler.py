"""Which requests take part in a forward pass, and with which tokens. Plain Python: no tensors, no model, no clock.

The order of requests is that in which they came. Every request that runs and has one token to compute is in every pass.
What is left of the pass's tokens goes to prompts: half of it to the oldest, so that it gets on, the rest to those that
need least, so that short prompts do not wait for long ones. A waiting request starts, in order, as soon as there are
blocks for all of its tokens. Where a running one needs a block and there is none, the youngest gives its blocks up,
keeps its tokens, and computes them again later; the oldest never does, so each becomes the oldest and ends.
"""

from __future__ import annotations

import itertools
from bisect import insort
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kaito_runtime.engine.kv_cache import BlockPool

__all__ = ["Request", "Row", "Scheduler"]

_SCORED_TOKENS = 128
"""Most prompt tokens of one pass whose log-probabilities are asked for: each takes memory for the whole vocabulary."""
_GROWS = 512  # tokens by which a request is expected to grow: most ask for more than they use


class Row(NamedTuple):
    """One request's part of a forward pass.

    Attributes:
        tokens: Number of its tokens in the pass.
        samples: Whether its next token is chosen after the pass; not so where a long prompt continues in the next.
        before: Number of its tokens that were computed before; at its first pass, those of a shared prefix.
        scores: Number of its tokens in the pass whose logits score the next token of the prompt.
    """

    request_id: str
    tokens: int
    samples: bool
    before: int
    scores: int = 0


@dataclass(slots=True, eq=False)
class Request:
    """A request and its blocks.

    Attributes:
        arrival: Its place in the order of requests.
        prompt: Number of the prompt's tokens.
        tokens: The prompt's and the answer's, all that are known.
        most: Number of tokens at which it ends.
        ends: Tokens that end it.
        salt: Only requests with equal salts share prefixes.
        scored: Number of the prompt's tokens that are scored; the prompt's length where none is to be.
        blocks: Blocks of the cache that it holds, in order.
        computed: Number of its tokens whose keys and values are in them.
        found: Number of its first blocks that came from others.
        published: Number of its first blocks that others may find.
        before: What is before the next block to publish.
        rope: Which rotary table its keys were computed with.
    """

    id: str
    arrival: int
    prompt: int
    tokens: list[int]
    most: int
    ends: frozenset[int]
    salt: Hashable
    scored: int
    blocks: list[int] = field(default_factory=list)
    computed: int = 0
    found: int = 0
    published: int = 0
    before: Hashable = None
    rope: int = 0

    @property
    def remaining(self) -> int:
        """Number of tokens that are to be computed before the next can be chosen."""
        return len(self.tokens) - self.computed


class Scheduler:
    """Chooses the rows of each pass. A pass is `plan` and `commit`; `add` and `drop` come between passes.

    Args:
        blocks: Number of blocks of the cache.
        block_tokens: Tokens of one block.
        step_tokens: Most tokens of one pass.
        requests: Most requests of one pass.
        reuse_prefixes: Whether equal prefixes are computed once.
        rope_of: Returns which rotary table holds for a sequence of so many tokens. Where it changes while a request
            grows, all its keys are computed again.

    Attributes:
        longest: Longest sequence that the cache can hold, in tokens.
        asked: Prompt tokens that were looked up, to be shared.
        found: Prompt tokens that were found, and not computed.
    """

    def __init__(
        self,
        *,
        blocks: int,
        block_tokens: int,
        step_tokens: int,
        requests: int,
        reuse_prefixes: bool = False,
        rope_of: Callable[[int], int] = lambda tokens: 0,
    ) -> None:
        self.pool = BlockPool(blocks, block_tokens)
        self.longest = blocks * block_tokens
        self.asked = self.found = 0
        self._step_tokens = step_tokens
        self._most_rows = min(requests, step_tokens)
        self._reuses = reuse_prefixes
        self._rope_of = rope_of
        self._arrivals = itertools.count()
        self._known: dict[str, Request] = {}
        self._running: list[Request] = []  # both in the order of arrival
        self._waiting: list[Request] = []
        self._planned: list[tuple[Request, Row]] = []

    def add(
        self,
        request_id: str,
        prompt: Sequence[int],
        max_tokens: int,
        end_tokens: Collection[int],
        salt: Hashable = None,
        *,
        scores_prompt: bool = False,
    ) -> None:
        """Queues a request.

        Args:
            request_id: Not that of another request.
            prompt: Tokens.
            max_tokens: 0 computes the prompt alone. The answer ends sooner where the cache is full.
            end_tokens: Tokens that end the answer.
            salt: Only requests with equal salts share prefixes.
            scores_prompt: Whether log-probabilities of the prompt's tokens are asked for.

        Raises:
            ValueError: The prompt is empty or does not fit the cache, or the id is in use.
        """
        if not prompt:
            raise ValueError("the prompt has no tokens")
        if len(prompt) > self.longest or (max_tokens and len(prompt) == self.longest):
            raise ValueError(
                f"the prompt has {len(prompt)} tokens, the key-value cache holds {self.longest}: shorten the prompt, "
                "or set --cache-gib higher"
            )
        if request_id in self._known:
            raise ValueError(f"request {request_id} is queued already")
        request = Request(
            id=request_id,
            arrival=next(self._arrivals),
            prompt=len(prompt),
            tokens=list(prompt),
            most=min(len(prompt) + max_tokens, self.longest),
            ends=frozenset(end_tokens),
            salt=salt,
            scored=1 if scores_prompt else len(prompt),
        )
        self._known[request_id] = request
        self._waiting.append(request)

    def drop(self, request_ids: Collection[str]) -> None:
        """Forgets requests at once; unknown ids are ignored. No later request reuses what they computed."""
        for request_id in request_ids:
            request = self._known.pop(request_id, None)
            if request is None:
                continue
            (self._running if request.blocks else self._waiting).remove(request)
            self._give_up_blocks(request, spoilt=True)  # perhaps dropped because its keys are not finite
        self._planned = [(request, row) for request, row in self._planned if request.id in self._known]

    def plan(self) -> tuple[Row, ...]:
        """Chooses the rows of the next pass; empty if there is nothing to do. Without `commit`, it was not computed."""
        self._restart_where_the_table_changes()
        self._start_waiting()
        self._grow()
        rows: list[tuple[Request, Row]] = []
        left = self._step_tokens
        prompts = []
        for request in self._running:
            if request.remaining == 1 and request.scored >= request.prompt:
                rows.append((request, self._row(request, 1)))
                left -= 1
            else:
                prompts.append(request)
        rows += [(request, self._row(request, count)) for request, count in self._share(prompts, left).items()]
        self._planned = rows
        return tuple(row for _, row in rows)

    def planned(self) -> list[tuple[Request, Row]]:
        """Returns what `plan` chose."""
        return self._planned

    def commit(self, tokens: Sequence[int]) -> set[str]:
        """Notes that the rows of `plan` are computed, and returns the ids of requests that are complete.

        Args:
            tokens: The next token of each row that samples, in order.
        """
        complete = set()
        chosen = iter(tokens)
        for request, row in self._planned:
            request.computed += row.tokens
            request.scored += row.scores
            self._publish(request)
            ends = request.computed >= request.most  # only of a request that asks for its prompt alone
            if row.samples:
                token = next(chosen)
                request.tokens.append(token)
                ends = token in request.ends or len(request.tokens) >= request.most
            if ends:
                complete.add(request.id)
                del self._known[request.id]
                self._running.remove(request)
                self._give_up_blocks(request)
        self._planned = []
        return complete

    def forget_prefixes(self) -> None:
        """Forgets what was shared so far. Only while there are no requests."""
        self.pool = BlockPool(self.pool.blocks, self.pool.block_tokens)
        self.asked = self.found = 0

    @property
    def running(self) -> int:
        """Number of requests that hold blocks."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of requests that hold none."""
        return len(self._waiting)

    def _row(self, request: Request, count: int) -> Row:
        end = request.computed + count
        samples = end == len(request.tokens) and len(request.tokens) < request.most
        # The token at position p scores the one at p + 1, so the prompt's last token scores none.
        scores = max(0, min(end + 1, request.prompt) - max(request.computed + 1, request.scored))
        return Row(request.id, count, samples, request.computed, scores)

    def _share(self, prompts: Sequence[Request], left: int) -> dict[Request, int]:
        """Returns how many tokens of each prompt are computed, in the order of arrival."""
        shares = dict.fromkeys(prompts, 0)
        scored = _SCORED_TOKENS

        def give(request: Request, most: int) -> None:
            nonlocal left, scored
            count = min(request.remaining - shares[request], most, left)
            if request.scored < request.prompt:
                count = min(count, scored)
                scored -= count
            shares[request] += count
            left -= count

        if prompts:
            give(prompts[0], -(-left // 2))
            for request in sorted(prompts[1:], key=lambda request: request.remaining):
                give(request, left)
            give(prompts[0], left)
        return {request: count for request, count in shares.items() if count}

    def _start_waiting(self) -> None:
        while self._waiting:
            request = self._waiting[0]
            # The oldest of all waits only if it had to start again; it gets on whatever the others need.
            oldest = not self._running or request.arrival < self._running[0].arrival
            if len(self._running) == self._most_rows:
                if not oldest:
                    return
                self._preempt(self._running[-1])
            found: list[int] = []
            request.rope = self._rope_of(len(request.tokens))
            if self._reuses and request.scored >= request.prompt:
                found, request.before = self.pool.find((request.salt, request.rope), request.tokens)
            else:
                request.before = ("salt", (request.salt, request.rope))
            needed = self._blocks_for(len(request.tokens)) - len(found)
            # One block for each that runs: otherwise the new one would soon have to give its own up again.
            while oldest and self._running and needed > self.pool.available:
                self._preempt(self._running[-1])
            if not oldest and needed > self.pool.available - len(self._running):
                self.pool.release(found)
                return
            del self._waiting[0]
            room = self._blocks_for(min(request.most, len(request.tokens) + _GROWS))
            request.blocks = found + self.pool.take(needed, found[-1] if found else None, room)
            request.found = request.published = len(found)
            request.computed = len(found) * self.pool.block_tokens
            if self._reuses and len(request.tokens) == request.prompt:
                self.asked += request.prompt
                self.found += request.computed
            insort(self._running, request, key=lambda one: one.arrival)

    def _grow(self) -> None:
        """Gives each running request blocks for all of its tokens, the oldest first."""
        for request in list(self._running):
            if not request.blocks:
                continue  # it had to give them up for an older one
            missing = self._blocks_for(len(request.tokens)) - len(request.blocks)
            while missing > self.pool.available and request.blocks:
                self._preempt(self._running[-1])
            if missing > 0 and request.blocks:
                request.blocks += self.pool.take(missing, request.blocks[-1])

    def _restart_where_the_table_changes(self) -> None:
        for request in list(self._running):
            if request.rope != self._rope_of(len(request.tokens)):
                self._preempt(request)

    def _preempt(self, request: Request) -> None:
        self._running.remove(request)
        self._give_up_blocks(request)
        insort(self._waiting, request, key=lambda one: one.arrival)

    def _give_up_blocks(self, request: Request, *, spoilt: bool = False) -> None:
        self.pool.release(request.blocks, request.blocks[request.found :] if spoilt else ())
        request.blocks = []
        request.computed = request.found = request.published = 0

    def _publish(self, request: Request) -> None:
        if not self._reuses:
            return
        size = self.pool.block_tokens
        while (request.published + 1) * size <= request.computed:
            start = request.published * size
            request.before = self.pool.publish(
                request.blocks[request.published], request.before, request.tokens[start : start + size]
            )
            request.published += 1

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.pool.block_tokens)
