"""What a process is told at its start, as opposed to the configuration file: by the command line, and by torchrun."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kaito_runtime.errors import ServeError

__all__ = ["ALONE", "Ranks", "ServeOptions"]


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line decides, as opposed to the configuration file.

    Attributes:
        model: Folder or GGUF file.
        config_file: Watched, if given.
        admin_token: Bearer token of the admin routes; None: they are off.
        cache_gib: Size of the key-value cache; None chooses one.
        step_tokens: Most tokens of one forward pass.
        batch_requests: Most requests of one forward pass.
        max_waiting: Most requests that wait; more get 429.
        drain_seconds: How long requests may run on after SIGTERM.
        request_seconds: Longest time that a request may take, waiting included; None for no limit.
        pack_weights: Keep a second, packed copy of large weights on a CPU, for faster batches; None: if there is room.
        reuse_prefixes: Keep what prompts have in common instead of computing it again.
    """

    model: Path
    host: str = "127.0.0.1"
    port: int = 5000
    adapters_dir: Path | None = None
    config_file: Path | None = None
    api_key: str | None = None
    admin_token: str | None = None
    cache_gib: float | None = None
    step_tokens: int = 512
    batch_requests: int = 64
    max_waiting: int = 256
    drain_seconds: float = 30.0
    pack_weights: bool | None = None
    reuse_prefixes: bool = False
    request_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of the processes this is.

    Attributes:
        rank: Its number among all; 0 leads.
        size: How many there are.
        local_rank: Its number on this node.
        node: The node's number.
        nodes: How many there are.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    node: int = 0
    nodes: int = 1

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Ranks:
        """Returns what torchrun said.

        Raises:
            ServeError: WORLD_SIZE is above 1 and the rest is missing: something else set it.
        """
        size = int(environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return ALONE
        names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        if missing := [name for name in names if name not in environ]:
            raise ServeError(
                f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set: start the processes by torchrun"
            )
        return cls(
            rank=int(environ["RANK"]),
            size=size,
            local_rank=int(environ["LOCAL_RANK"]),
            node=int(environ["GROUP_RANK"]),
            nodes=size // int(environ["LOCAL_WORLD_SIZE"]),
        )

    @property
    def leads(self) -> bool:
        """Whether this process decides and serves."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"rank {self.rank} on {socket.gethostname()}"


ALONE = Ranks()
