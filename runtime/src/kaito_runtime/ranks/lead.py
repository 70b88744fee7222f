"""Lead: the runner of rank 0, which makes every other rank do what it does. `follow` is the other half.

Each message has a name and arguments; all ranks act on messages in the order in which they are sent.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from kaito_runtime.engine.batching import Choose, Row, Score, score_nothing
from kaito_runtime.engine.runner import Runner
from kaito_runtime.errors import AdapterLoadError, GroupLostError, one_line
from kaito_runtime.lora.inject import LoraModel
from kaito_runtime.lora.records import AdapterVersion, AdapterWeights
from kaito_runtime.model.memory import BatchLimits
from kaito_runtime.ranks.group import Group

__all__ = ["Lead"]


@dataclass(slots=True)
class _Reading:
    """An adapter that the other ranks read.

    Attributes:
        ranks: Those that have not finished.
        troubles: Why others could not read it.
    """

    name: str
    ranks: set[int]
    troubles: list[str] = field(default_factory=list)


class Lead(Runner):
    """A runner whose every call is made on all ranks. Any call may raise `GroupLostError`.

    Args:
        model, lora, limits: See `Runner`.
        group: The ranks that share the model.
        adapters_dir: The adapters folder on this rank; adapters in it are named relative to it, since it may be
            elsewhere on another rank.
    """

    shared = True

    def __init__(
        self, model: nn.Module, lora: LoraModel, limits: BatchLimits, group: Group, adapters_dir: Path | None
    ) -> None:
        super().__init__(model, lora, limits)
        self._group = group
        group.alarm.watch()
        self._adapters_dir = adapters_dir
        self._numbers: dict[AdapterVersion, int] = {}
        self._next = itertools.count()
        self._readings: dict[int, _Reading] = {}  # by ticket

    def add(
        self,
        request_id: str,
        prompt: Sequence[int],
        max_tokens: int,
        end_tokens: Collection[int],
        strengths: Mapping[AdapterVersion, float],
        *,
        scores_prompt: bool = False,
    ) -> None:
        """See `Runner.add`."""
        numbered = [(self._numbers[version], strength) for version, strength in strengths.items()]
        self._group.send("add", request_id, list(prompt), max_tokens, list(end_tokens), numbered, scores_prompt)
        super().add(request_id, prompt, max_tokens, end_tokens, strengths, scores_prompt=scores_prompt)

    def drop(self, request_ids: Collection[str]) -> None:
        """See `Runner.drop`. Does not need the other ranks: requests are dropped when those are lost, too."""
        with suppress(GroupLostError):
            self._group.send("drop", list(request_ids))
        super().drop(request_ids)

    def prepare(self) -> tuple[Row, ...]:
        """See `Runner.prepare`. The others prepare too, and compare."""
        try:
            rows = super().prepare()
        except Exception:
            self._group.send("compute", None)
            raise
        self._group.send("compute", rows)
        return rows

    def step(self, choose: Choose, score: Score = score_nothing) -> set[str]:
        """See `Runner.step`. Tokens are chosen on this rank alone, and sent to the others.

        A pass that fails on all ranks fails its requests; one that fails on some ranks ends all of them.
        """

        def choose_for_all(request_ids: Sequence[str], logits: Tensor) -> Sequence[int]:
            tokens = list(choose(request_ids, logits))
            self._group.send("tokens", tokens)
            return tokens

        try:
            return super().step(choose_for_all, score)
        except GroupLostError:
            raise
        except Exception as error:
            self._group.alarm.ring(error)
            self._group.send("failed")
            failed = self._group.collect(True)
            self._group.alarm.settle()
            if not all(failed):
                self._group.lost = f"a pass failed here and not on rank {failed.index(False)}: {error}"
                raise GroupLostError(self._group.lost) from error
            raise

    def start_reading(self, weights: AdapterWeights, path: Path) -> int:
        """See `Runner.start_reading`. The other ranks read in a thread while passes go on."""
        ticket = next(self._next)
        root = self._adapters_dir
        known = path.relative_to(root) if root is not None and path.is_relative_to(root) else path
        self._readings[ticket] = _Reading(weights.name, set(range(1, self._group.ranks.size)))
        self._group.send("start_reading", ticket, weights.name, str(known), weights.digest)
        return ticket

    def all_have_read(self, ticket: int) -> bool:
        """See `Runner.all_have_read`."""
        self.beat()
        reading = self._readings[ticket]
        if reading.ranks:
            return False
        if reading.troubles:
            raise AdapterLoadError(reading.name, "; ".join(reading.troubles), transient=True)
        return True

    def stop_reading(self, ticket: int) -> None:
        """See `Runner.stop_reading`."""
        del self._readings[ticket]
        with suppress(GroupLostError):
            self._group.send("stop_reading", ticket)

    def load(self, weights: AdapterWeights, ticket: int = 0) -> AdapterVersion:
        """See `Runner.load`."""
        number = next(self._next)
        self._group.send("load", number, ticket)
        version, trouble = None, ""
        try:
            version = super().load(weights)
        except Exception as error:  # such as a lack of memory: the others must not keep theirs
            trouble = error.reason if isinstance(error, AdapterLoadError) else f"{self._group.ranks}: {one_line(error)}"
        troubles = list(dict.fromkeys(filter(None, self._group.collect(trouble))))
        if version is None or troubles:
            self._group.send("unload", number)
            if version is not None:
                super().retire(version)
            raise AdapterLoadError(weights.name, "; ".join(troubles), transient=True)
        self._numbers[version] = number
        return version

    def retire(self, version: AdapterVersion) -> None:
        """See `Runner.retire`."""
        self._group.send("retire", self._numbers.pop(version))
        super().retire(version)

    def beat(self) -> None:
        """See `Runner.beat`. Collects which ranks were asked to end, and which have read their adapters."""
        self._group.send("beat")
        for rank, (leaving, read) in enumerate(self._group.collect((False, []))):
            self.leaving = self.leaving or leaving
            for ticket, trouble in read:
                if (reading := self._readings.get(ticket)) is not None and rank in reading.ranks:
                    reading.ranks.remove(rank)
                    reading.troubles += [trouble] if trouble else []

    def end(self) -> None:
        """See `Runner.end`."""
        with suppress(GroupLostError):
            self._group.send("end")
            self._group.leave()

    @property
    def lost(self) -> str:
        """See `Runner.lost`."""
        return self._group.lost
