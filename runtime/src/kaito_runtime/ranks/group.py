"""The group of processes (ranks) that share one model: how they find one another, and send messages.

torchrun starts them and numbers them. Rank 0 leads: it decides everything, and all ranks act on each of its messages in
the same order, so that all have the same requests, cache pages and tokens. What the messages mean is in `lead` and
`follow`; tensors of the model travel by the layers' own collectives (`lora.sharded`).
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from kaito_runtime.errors import GroupLostError
from kaito_runtime.options import Ranks
from kaito_runtime.ranks.alarm import Alarm
from kaito_runtime.ranks.messages import decode, decode_message, encode

__all__ = ["Group", "join"]

log = logging.getLogger(__name__)

_SILENCE_SECONDS = 120.0  # without a message or a reply; then a rank counts as lost
_LOAD_SECONDS = 7200.0  # between the first rank that has read its weights and the last
_MEET_SECONDS = 600.0  # between the first process that starts and the last
_LOOK_SECONDS = 0.1
_FRAME = 16384  # bytes; most messages fit one broadcast
_LENGTH = 8  # bytes of the length in front of a message


def join(ranks: Ranks, environ: Mapping[str, str]) -> Group:
    """Joins the group of all ranks.

    Args:
        ranks: This process's place in it.
        environ: Environment variables, in which torchrun puts the address of its store.

    Raises:
        GroupLostError: The others do not come in time.
    """
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    device = torch.device("cuda", ranks.local_rank) if backend == "nccl" else None
    loading = timedelta(seconds=_LOAD_SECONDS)
    try:
        if device is not None:
            torch.cuda.set_device(device)
        store = _meet(ranks, environ)
        dist.init_process_group(
            backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=loading, device_id=device
        )
        slow = dist.new_group(backend="gloo", timeout=loading)
        quick = dist.new_group(backend="gloo", timeout=timedelta(seconds=_SILENCE_SECONDS))
    except (RuntimeError, ValueError) as error:
        raise GroupLostError(f"rank {ranks.rank} of {ranks.size} cannot join the others: {error}") from error
    assert slow is not None and quick is not None
    return Group(ranks, slow, quick, store)


def _meet(ranks: Ranks, environ: Mapping[str, str]) -> Store:
    """Returns a store that only the processes of this start share.

    torchrun's own store outlives them, and numbers starts by a count that each node keeps for itself: after the loss of
    one node, the others would wait there for ranks that are gone.
    """
    hosts = ranks.leads and environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    place = TCPStore(
        environ["MASTER_ADDR"],
        int(environ["MASTER_PORT"]),
        is_master=hosts,
        multi_tenant=True,
        timeout=timedelta(seconds=_MEET_SECONDS),
    )
    store = PrefixStore("kaito", place)
    me = uuid.uuid4().hex
    if ranks.leads:
        store.set("leader", me)
        known = [store.get(f"{me}/{rank}").decode() for rank in range(1, ranks.size)]  # waits for each
        store.set(f"{me}/known", " ".join(known))
        return PrefixStore(me, store)
    deadline = time.monotonic() + _MEET_SECONDS
    asked = ""
    while time.monotonic() < deadline:
        leader = store.get("leader").decode()  # maybe of the start before, until this one has set it
        if leader != asked:
            store.set(f"{leader}/{ranks.rank}", me)
            asked = leader
        if store.check([f"{leader}/known"]) and me in store.get(f"{leader}/known").decode().split():
            return PrefixStore(leader, store)
        time.sleep(_LOOK_SECONDS)
    raise RuntimeError(f"the first rank has not come within {_MEET_SECONDS:g} s")


class Group:
    """Messages between the ranks. Any process that reaches their ports is trusted, as torchrun and NCCL trust it.

    Belongs to one thread at a time.

    Attributes:
        ranks: This process's place in the group.
        lost: Why nothing can be sent any more, or "".
        alarm: Reaches ranks that wait in a collective of the model.
    """

    def __init__(self, ranks: Ranks, slow: dist.ProcessGroup, quick: dist.ProcessGroup, store: Store) -> None:
        self.ranks = ranks
        self.lost = ""
        self.alarm = Alarm(store, ranks.rank, ranks.size, self._lose)
        self._slow = slow
        self._quick = quick
        self._frame = torch.empty(_FRAME, dtype=torch.uint8)

    @property
    def model(self) -> dist.ProcessGroup:
        """The process group of the model's layers."""
        world = dist.group.WORLD
        assert world is not None
        return world

    def exchange(self, value: object) -> list[Any]:
        """Returns every rank's value, in the order of ranks. For the start: it waits as long as loading may take.

        Raises:
            GroupLostError: A rank is gone.
        """
        return self._gather(value, self._slow)

    def send(self, name: str, *arguments: object) -> None:
        """As the leader: sends a message to all other ranks.

        Raises:
            GroupLostError: A rank is gone.
        """
        content = encode([name, *arguments])
        room = _FRAME - _LENGTH
        head, rest = content[:room], content[room:]
        framed = len(content).to_bytes(_LENGTH, "little") + head
        self._frame[: len(framed)] = _tensor(framed)
        self._do(lambda: dist.broadcast(self._frame, 0, group=self._quick))
        if rest:
            tail = _tensor(rest)
            self._do(lambda: dist.broadcast(tail, 0, group=self._quick))

    def receive(self) -> list[Any]:
        """As another rank: waits for the leader's next message and returns its name and arguments.

        Raises:
            GroupLostError: The leader is gone, silent for too long, or sent something else.
        """
        self._do(lambda: dist.broadcast(self._frame, 0, group=self._quick))
        framed = self._frame.numpy().tobytes()
        length = int.from_bytes(framed[:_LENGTH], "little")
        content = framed[_LENGTH : _LENGTH + length]
        if missing := length - len(content):
            tail = torch.empty(missing, dtype=torch.uint8)
            self._do(lambda: dist.broadcast(tail, 0, group=self._quick))
            content += tail.numpy().tobytes()
        message: list[Any] = []
        self._do(lambda: message.extend(decode_message(content)))
        return message

    def collect(self, value: object = None) -> list[Any]:
        """As the leader: waits for every rank's reply to the last message; the leader's own is `value`.

        Raises:
            GroupLostError: A rank is gone, or does not reply.
        """
        return self._gather(value, self._quick)

    def reply(self, value: object) -> None:
        """As another rank: replies to the last message.

        Raises:
            GroupLostError: A rank is gone.
        """
        self._gather(value, self._quick)

    def leave(self) -> None:
        """Ends cleanly, after all ranks know that it ends."""
        self.alarm.stop()
        if not self.lost:
            dist.destroy_process_group()

    def _gather(self, value: object, group: dist.ProcessGroup) -> list[Any]:
        content = encode(value)
        lengths = [torch.empty(1, dtype=torch.int64) for _ in range(self.ranks.size)]
        self._do(lambda: dist.all_gather(lengths, torch.tensor([len(content)]), group=group))
        longest = max(int(length) for length in lengths)
        parts = [torch.empty(longest, dtype=torch.uint8) for _ in lengths]
        self._do(lambda: dist.all_gather(parts, _tensor(content.ljust(longest)), group=group))
        found: list[Any] = []
        self._do(lambda: found.extend(decode(part.numpy().tobytes()) for part in parts))  # blanks at the end are JSON
        return found

    def _lose(self, why: str) -> None:
        """In the alarm's thread: the leader's server sees `lost` and ends; any other rank may wait in a collective."""
        self.lost = self.lost or f"{self.ranks} has lost the others: {why}"
        log.error("%s", self.lost)
        if not self.ranks.leads:
            os._exit(1)

    def _do(self, act: Callable[[], object]) -> None:
        if self.lost:
            raise GroupLostError(self.lost)
        try:
            act()
        except (RuntimeError, ValueError) as error:  # torch's DistError is a RuntimeError
            self.lost = f"{self.ranks} has lost the others: {error}"
            raise GroupLostError(self.lost) from error


def _tensor(content: bytes) -> Tensor:
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)
