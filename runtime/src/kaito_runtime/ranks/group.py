"""Ranks: the processes that share one model, and how the first of them tells the others what to do.

torchrun starts them and says who is who. The first rank leads: it decides everything, and every message that it sends
is acted upon by all in the same order, so that all hold the same requests, pages and tokens. What the messages mean is
`lead`'s and `follow`'s business; tensors of the model travel elsewhere (`lora.shards`).
"""

from __future__ import annotations

import pickle
import time
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from kaito_runtime.errors import GroupLostError
from kaito_runtime.options import Ranks

__all__ = ["BEAT_SECONDS", "Group", "join"]

BEAT_SECONDS = 1.0
"""How often the leader is heard of when there is nothing to do, and hears of ranks that are gone or have to go."""
_SILENCE_SECONDS = 120.0  # without a message or an answer, after which a rank counts as lost
_LOAD_SECONDS = 7200.0  # between the first rank that has read its weights and the last
_MEET_SECONDS = 600.0  # between the first process and the last
_LOOK_SECONDS = 0.1
_FRAME = 16384  # bytes; most messages fit one broadcast


def join(ranks: Ranks, environ: Mapping[str, str]) -> Group:
    """Meets the other ranks.

    Args:
        environ: Where torchrun says what its own meeting place is.

    Raises:
        GroupLostError: They do not come.
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
        raise GroupLostError(f"rank {ranks.rank} of {ranks.size} cannot meet the others: {error}") from error
    assert slow is not None and quick is not None
    return Group(ranks, slow, quick)


def _meet(ranks: Ranks, environ: Mapping[str, str]) -> Store:
    """Returns a store that only the processes of this start share.

    torchrun's own outlives them. It tells starts apart by a number that nodes count for themselves, so that after the
    loss of one node the others would look for ranks that are gone.
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
        leader = store.get("leader").decode()  # perhaps one of before, until the new one comes
        if leader != asked:
            store.set(f"{leader}/{ranks.rank}", me)
            asked = leader
        if store.check([f"{leader}/known"]) and me in store.get(f"{leader}/known").decode().split():
            return PrefixStore(leader, store)
        time.sleep(_LOOK_SECONDS)
    raise RuntimeError(f"the first rank has not come within {_MEET_SECONDS:g} s")


class Group:
    """Messages between the ranks, as pickles: whoever reaches their ports is trusted, as by torchrun itself.

    Belongs to one thread at a time.

    Attributes:
        ranks: Which rank this is.
        lost: Why nothing can be sent any more, or "".
    """

    def __init__(self, ranks: Ranks, slow: dist.ProcessGroup, quick: dist.ProcessGroup) -> None:
        self.ranks = ranks
        self.lost = ""
        self._slow = slow
        self._quick = quick
        self._frame = torch.empty(_FRAME, dtype=torch.uint8)

    @property
    def model(self) -> dist.ProcessGroup:
        """The ranks as the model's layers see them."""
        world = dist.group.WORLD
        assert world is not None
        return world

    def exchange(self, value: Any) -> list[Any]:
        """Returns every rank's value, in order. For the start: it waits as long as loading may take.

        Raises:
            GroupLostError: A rank is gone.
        """
        found: list[Any] = [None] * self.ranks.size
        self._do(lambda: dist.all_gather_object(found, value, group=self._slow))
        return found

    def tell(self, message: object) -> None:
        """Sends a message to all other ranks.

        Raises:
            GroupLostError: A rank is gone.
        """
        content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        room = _FRAME - 8
        head, rest = content[:room], content[room:]
        framed = len(content).to_bytes(8, "little") + head
        self._frame[: len(framed)] = torch.frombuffer(bytearray(framed), dtype=torch.uint8)
        self._do(lambda: dist.broadcast(self._frame, 0, group=self._quick))
        if rest:
            tail = torch.frombuffer(bytearray(rest), dtype=torch.uint8)
            self._do(lambda: dist.broadcast(tail, 0, group=self._quick))

    def hear(self) -> Any:
        """Waits for the next message of the leader and returns it.

        Raises:
            GroupLostError: The leader is gone, or silent for too long.
        """
        self._do(lambda: dist.broadcast(self._frame, 0, group=self._quick))
        framed = self._frame.numpy().tobytes()
        length = int.from_bytes(framed[:8], "little")
        content = framed[8 : 8 + length]
        if missing := length - len(content):
            tail = torch.empty(missing, dtype=torch.uint8)
            self._do(lambda: dist.broadcast(tail, 0, group=self._quick))
            content += tail.numpy().tobytes()
        return pickle.loads(content)

    def answers(self, value: object = None) -> list[Any]:
        """As the leader: waits for what every rank answers to the last message; its own is `value`.

        Raises:
            GroupLostError: A rank is gone, or does not answer.
        """
        found: list[Any] = [None] * self.ranks.size
        self._do(lambda: dist.gather_object(value, found, 0, group=self._quick))
        return found

    def answer(self, value: object) -> None:
        """As another rank: answers the last message.

        Raises:
            GroupLostError: The leader is gone.
        """
        self._do(lambda: dist.gather_object(value, None, 0, group=self._quick))

    def leave(self) -> None:
        """Ends cleanly, after all ranks know that it ends."""
        if not self.lost:
            dist.destroy_process_group()

    def _do(self, act: Any) -> None:
        if self.lost:
            raise GroupLostError(self.lost)
        try:
            act()
        except (RuntimeError, ValueError) as error:  # torch's DistError is a RuntimeError
            self.lost = f"{self.ranks} has lost the others: {error}"
            raise GroupLostError(self.lost) from error
