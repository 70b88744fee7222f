"""Follower: every rank but rank 0. It does what rank 0 does (`lead`), on its own part of the model."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor, nn

from kaito_runtime.engine.batching import Row
from kaito_runtime.engine.runner import Runner
from kaito_runtime.errors import AdapterLoadError, GroupLostError, ServeError, one_line
from kaito_runtime.formats.files import read_adapter
from kaito_runtime.lora.inject import LoraModel
from kaito_runtime.lora.records import AdapterVersion, AdapterWeights
from kaito_runtime.model.memory import BatchLimits
from kaito_runtime.ranks.group import Group

__all__ = ["ARRIVAL_SECONDS", "DriftError", "Follower"]

log = logging.getLogger(__name__)

ARRIVAL_SECONDS = 60.0
"""How long an adapter that rank 0 has may take to arrive on other nodes."""
_LOOK_SECONDS = 0.5


class DriftError(ServeError):
    """This rank is not in the same state as the leader. Its results would be wrong on all ranks, so it must end."""


class _LeaderFailedError(Exception):
    """The leader's pass failed, so there are no tokens for this rank's."""


class Follower:
    """Follows the leader until it ends.

    Args:
        model, lora, limits: See `Runner`.
        group: The ranks that share the model.
        adapters_dir: The adapters folder on this rank; paths of the leader's messages are relative to it.
        arrival_seconds: How long to wait for files that the leader has already.
    """

    def __init__(
        self,
        model: nn.Module,
        lora: LoraModel,
        limits: BatchLimits,
        group: Group,
        *,
        adapters_dir: Path | None = None,
        arrival_seconds: float = 0.0,
    ) -> None:
        self._model = model
        self._group = group
        self._adapters_dir = adapters_dir or Path()
        self._arrival_seconds = arrival_seconds
        self._runner = Runner(model, lora, limits)
        group.alarm.watch()
        self._versions: dict[int, AdapterVersion] = {}
        self._read: dict[int, AdapterWeights | str | None] = {}  # by ticket; text: why it failed; None: still reading
        self._leaving = False
        self._acts: dict[str, Callable[..., None]] = {
            "add": self._add,
            "drop": self._drop,
            "compute": self._compute,
            "failed": self._failed,
            "beat": self._beat,
            "start_reading": self._start_reading,
            "stop_reading": self._stop_reading,
            "load": self._load,
            "unload": self._unload,
            "retire": self._retire,
        }

    def run(self) -> None:
        """Acts on the leader's messages. Returns when the leader ends and this rank was asked to end too.

        Raises:
            GroupLostError: The leader is gone, or ended without a signal to this rank.
            DriftError: This rank and the leader are not in the same state.
        """
        while True:
            name, *arguments = self._group.receive()
            if name == "end":
                self._group.leave()
                if not self._leaving:  # an error, so that this node's ranks start again
                    raise GroupLostError(f"{self._group.ranks} ends because rank 0 has ended")
                return
            act = self._acts.get(name)
            if act is None:
                raise DriftError(
                    f"{self._group.ranks} does not know the message '{name}': do all run the same version?"
                )
            act(*arguments)

    def leave(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: the leader reads it with the next beat, finishes its requests, and ends all ranks."""
        log.info("%s: stopping with the leader", signal.Signals(number).name)
        self._leaving = True

    # One method per message. An error that happens on the leader too is reported by the leader.

    def _add(
        self,
        request_id: str,
        prompt: Sequence[int],
        max_tokens: int,
        end_tokens: Sequence[int],
        strengths: Sequence[tuple[int, float]],
        scores_prompt: bool,
    ) -> None:
        live = {self._versions[number]: strength for number, strength in strengths}
        try:
            self._runner.add(request_id, prompt, max_tokens, end_tokens, live, scores_prompt=scores_prompt)
        except Exception:
            log.exception("request %s cannot start on this rank", request_id)

    def _drop(self, request_ids: Sequence[str]) -> None:
        try:
            self._runner.drop(request_ids)
        except Exception:  # if it happens on this rank alone, the next pass finds the difference
            log.exception("requests %s cannot be dropped on this rank", ", ".join(request_ids))

    def _compute(self, leaders: Sequence[Sequence[Any]] | None) -> None:
        expected = None if leaders is None else tuple(Row(*row) for row in leaders)
        try:
            rows: tuple[Row, ...] | None = self._runner.prepare()
        except Exception as error:
            log.info("no pass can be prepared: %s", error)
            rows = None
        if rows != expected:
            raise DriftError(f"{self._group.ranks} would compute {rows}, the leader computes {expected}")
        if not rows:
            return
        try:
            self._runner.step(self._choose)
        except _LeaderFailedError:
            self._group.reply(True)
        except (GroupLostError, DriftError):
            raise
        except Exception as error:
            log.exception("a forward pass failed")
            self._expect_failure(error)

    def _choose(self, request_ids: Sequence[str], logits: Tensor) -> Sequence[int]:
        name, *arguments = self._group.receive()
        if name == "failed":
            raise _LeaderFailedError
        (tokens,) = arguments
        if name != "tokens" or len(tokens) != len(request_ids):
            raise DriftError(f"{self._group.ranks} needs {len(request_ids)} tokens, the leader sent {name} {tokens}")
        return list(tokens)

    def _expect_failure(self, error: Exception) -> None:
        self._group.alarm.ring(error)
        name, *_ = self._group.receive()
        if name != "failed":
            raise DriftError(f"a pass failed on {self._group.ranks} and not on the leader: {error}") from error
        self._group.reply(True)
        self._group.alarm.settle()

    def _failed(self) -> None:
        """The leader's pass failed after this rank's had succeeded."""
        self._group.reply(False)

    def _beat(self) -> None:
        # Of a copy: threads that read put their results in meanwhile.
        done = [(ticket, read) for ticket, read in list(self._read.items()) if read is not None]
        self._group.reply((self._leaving, [(ticket, read if isinstance(read, str) else "") for ticket, read in done]))

    def _read_adapter(self, ticket: int, name: str, path: Path, digest: str) -> None:
        """Runs in its own thread: files are large, and passes must go on."""
        deadline = time.monotonic() + self._arrival_seconds
        while True:
            try:
                found: AdapterWeights | str = read_adapter(path, self._model, name=name, digest=digest)
            except AdapterLoadError as error:
                found = f"{self._group.ranks}: {error.reason}"
            except Exception as error:
                found = f"{self._group.ranks}: {one_line(error)}"
            if not isinstance(found, str) or time.monotonic() >= deadline or ticket not in self._read:
                break
            time.sleep(_LOOK_SECONDS)
        if ticket in self._read:
            self._read[ticket] = found

    def _load(self, number: int, ticket: int) -> None:
        weights = self._read.pop(ticket, None)
        trouble = ""
        try:
            if not isinstance(weights, AdapterWeights):
                raise DriftError(f"ticket {ticket} was not read")
            self._versions[number] = self._runner.load(weights)
        except Exception as error:
            trouble = error.reason if isinstance(error, AdapterLoadError) else f"{self._group.ranks}: {one_line(error)}"
        self._group.reply(trouble)

    def _unload(self, number: int) -> None:
        if number in self._versions:
            self._retire(number)

    def _retire(self, number: int) -> None:
        try:
            self._runner.retire(self._versions.pop(number))
        except Exception:
            log.exception("an adapter cannot be unloaded on this rank")

    def _stop_reading(self, ticket: int) -> None:
        self._read.pop(ticket, None)

    def _start_reading(self, ticket: int, name: str, path: str, digest: str) -> None:
        self._read[ticket] = None
        task = partial(self._read_adapter, ticket, name, self._adapters_dir / path, digest)
        threading.Thread(target=task, name=f"read-{name}", daemon=True).start()
