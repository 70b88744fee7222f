"""Lead: the runner of rank 0, which makes every other rank do what it does. `follow` is the other half.

Each message has a name and arguments; all ranks act on messages in the order in which they are sent.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from torch import Tensor, nn

from kaito_runtime.engine.batching import Row
from kaito_runtime.engine.runner import Choose, Runner
from kaito_runtime.errors import AdapterLoadError, GroupLostError, one_line
from kaito_runtime.lora.inject import LoraModel
from kaito_runtime.lora.records import AdapterVersion, AdapterWeights
from kaito_runtime.model.memory import BatchLimits
from kaito_runtime.ranks.group import Group

__all__ = ["Lead"]

log = logging.getLogger(__name__)


class Lead(Runner):
    """A runner that speaks for all ranks. Every method may raise `GroupLostError`.

    Args:
        model, lora, limits, choose: See `Runner`. Tokens are chosen here alone, and sent.
        group: The other ranks.
        adapters_dir: Folder that adapters are under on every rank, wherever that is there.

    Attributes:
        leaving: Whether another rank was asked to end, with which all must.
    """

    def __init__(
        self,
        model: nn.Module,
        lora: LoraModel,
        limits: BatchLimits,
        choose: Choose,
        group: Group,
        adapters_dir: Path | None,
    ) -> None:
        def choose_for_all(request_ids: Sequence[str], logits: Tensor) -> Sequence[int]:
            tokens = list(choose(request_ids, logits))
            group.send("tokens", tokens)
            return tokens

        super().__init__(model, lora, limits, choose_for_all)
        self._group = group
        self._adapters_dir = adapters_dir
        self._numbers: dict[AdapterVersion, int] = {}
        self._next = itertools.count()
        self._read: dict[int, list[str | None]] = {}  # by ticket: what each rank says, None as long as it reads
        self.leaving = False

    def add(
        self,
        request_id: str,
        prompt: Sequence[int],
        max_tokens: int,
        end_tokens: Collection[int],
        strengths: Mapping[AdapterVersion, float],
    ) -> None:
        """See `Runner.add`."""
        numbered = [(self._numbers[version], strength) for version, strength in strengths.items()]
        self._group.send("add", request_id, list(prompt), max_tokens, list(end_tokens), numbered)
        super().add(request_id, prompt, max_tokens, end_tokens, strengths)

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

    def step(self) -> set[str]:
        """See `Runner.step`. A pass that fails on all ranks fails its requests; one that fails on some ends all."""
        try:
            return super().step()
        except GroupLostError:
            raise
        except Exception as error:
            self._group.send("failed")
            failed = self._group.collect(True)
            if not all(failed):
                self._group.lost = f"a pass failed here and not on rank {failed.index(False)}: {error}"
                raise GroupLostError(self._group.lost) from error
            raise

    def start_reading(self, name: str, path: Path, digest: str) -> int:
        """Has every rank read an adapter beside its passes, and returns the ticket to ask by."""
        ticket = next(self._next)
        root = self._adapters_dir
        known = path.relative_to(root) if root is not None and path.is_relative_to(root) else path
        self._read[ticket] = [""] + [None] * (self._group.ranks.size - 1)
        self._group.send("start_reading", ticket, name, str(known), digest)
        return ticket

    def troubles(self, ticket: int) -> list[str] | None:
        """Returns what keeps ranks from having read an adapter, none where all have; None while they read."""
        self.beat()
        said = self._read[ticket]
        return None if None in said else [trouble for trouble in said if trouble]

    def stop_reading(self, ticket: int) -> None:
        """Forgets what was read, loaded or not."""
        del self._read[ticket]
        with suppress(GroupLostError):
            self._group.send("stop_reading", ticket)

    def load_everywhere(self, weights: AdapterWeights, ticket: int) -> AdapterVersion:
        """Makes an adapter resident on all ranks, or on none.

        Raises:
            AdapterLoadError: It does not fit somewhere.
        """
        number = next(self._next)
        self._group.send("load", number, ticket)
        version, trouble = None, ""
        try:
            version = self.load(weights)
        except Exception as error:  # memory, above all: the others must hear of it
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
        """Shows the others that their leader lives, and collects their reports."""
        self._group.send("beat")
        for rank, (leaving, read) in enumerate(self._group.collect((False, []))):
            self.leaving = self.leaving or leaving
            for ticket, trouble in read:
                if ticket in self._read:
                    self._read[ticket][rank] = trouble

    def end(self) -> None:
        """Ends all ranks."""
        with suppress(GroupLostError):
            self._group.send("end")
            self._group.leave()

    @property
    def lost(self) -> str:
        """Why nothing can be computed any more, or ""."""
        return self._group.lost
