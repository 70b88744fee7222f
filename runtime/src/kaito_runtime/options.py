"""What is fixed when a process starts: options of the command line, and its rank from torchrun.

What may change while it runs is in the configuration file (`config`).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kaito_runtime.errors import ServeError
from kaito_runtime.keys import ApiKeys

__all__ = ["ALONE", "Ranks", "ServeOptions"]


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Options of `kaito-runtime serve`.

    Attributes:
        model: Folder or GGUF file.
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
        adapters_dir: Folder with one folder per adapter; None: adapters have absolute paths.
        api_keys: Bearer tokens, of which all routes but the probes and the page require one; None: they need none.
        open_status: Whether /v1/adapters and /metrics need no token either.
        key_requests: Most requests of an API key in a minute; None for no limit.
        key_tokens: Most tokens of an API key in a minute; None for no limit.
        admin_token: Bearer token of the admin routes; None turns them off.
        cache_gib: Size of the key-value cache; None for the default of the device.
        quantization: One of `kaito_core.api.preset.quantization.QUANTIZATIONS`; None: as the configuration says.
        device: "cpu", "cuda" (refused where there is no GPU that works), or "auto": a GPU if there is one.
        adapter_bytes: Size of the adapter pools; None: as the configuration says, or what fits beside the cache.
        max_adapter_rank: Adapters of a larger rank are refused; None: as the configuration says.
        step_tokens: Most tokens in one forward pass.
        batch_requests: Most requests in one forward pass.
        max_waiting: Most requests that wait; more get 429.
        drain_seconds: How long running requests may go on after SIGTERM.
        pack_weights: On a CPU, keep a second, packed copy of large weights for faster batches; None: if there is room.
        reuse_prefixes: Reuse keys and values of prompts that begin alike.
        chat_template: Text of the chat template; None for the model's own.
        model_defaults: Whether requests that say nothing get the sampling that the model's maker set.
        cors_origins: Origins of pages that may call the server from a browser.
        request_seconds: Time limit of a request, waiting included; None for none.
    """

    model: Path
    host: str = "127.0.0.1"
    port: int = 5000
    adapters_dir: Path | None = None
    api_keys: ApiKeys | None = None
    key_requests: int | None = None
    key_tokens: int | None = None
    admin_token: str | None = None
    open_status: bool = False
    cache_gib: float | None = None
    quantization: str | None = None
    device: str = "auto"
    adapter_bytes: int | None = None
    max_adapter_rank: int | None = None
    step_tokens: int = 512
    batch_requests: int = 64
    max_waiting: int = 256
    drain_seconds: float = 30.0
    pack_weights: bool | None = None
    reuse_prefixes: bool = False
    chat_template: str | None = None
    model_defaults: bool = True
    cors_origins: tuple[str, ...] = ()
    request_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among those that share the model.

    Attributes:
        rank: Its number among all processes; 0 leads.
        size: Number of processes.
        local_rank: Its number on this node.
        node: Number of this node.
        nodes: Number of nodes.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    node: int = 0
    nodes: int = 1

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Ranks:
        """Returns the place that torchrun's environment variables give.

        Raises:
            ServeError: WORLD_SIZE is above 1 and others are missing: it was not torchrun that set it.
        """
        size = int(environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return ALONE
        names = ("RANK", "LOCAL_RANK", "GROUP_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        if missing := [name for name in names if name not in environ]:
            raise ServeError(
                f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set: start the processes with torchrun"
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
        """Whether this process leads the others and serves."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"rank {self.rank} on {socket.gethostname()}"


ALONE = Ranks()
