"""Which rank pages are live on which tile of tokens: the list that K1, K2 and K3 of a step share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kaito_runtime.kernels.launch import cdiv

__all__ = ["Tiles"]


@dataclass(frozen=True, slots=True)
class Tiles:
    """Which pages are live on which tile of tokens, as compressed rows.

    Attributes:
        start: `[tiles + 1]` int32; tile t owns the entries start[t] to start[t + 1].
        pages: `[entries]` int32, page numbers in the pools.
        slots: `[entries]` int32, the column of the strength table that weighs the page.
        block_m: Tokens per tile.
        width: Most entries that any tile has, or more: it sizes u and the grid, and is known on the host.
    """

    start: Tensor
    pages: Tensor
    slots: Tensor
    block_m: int
    width: int

    def check(self, tokens: int) -> None:
        """Raises ValueError unless the lists fit `tokens`."""
        if self.start.shape != (cdiv(tokens, self.block_m) + 1,):
            raise ValueError(
                f"tiles.start has shape {list(self.start.shape)}, but {tokens} tokens in tiles of {self.block_m} "
                f"need [{cdiv(tokens, self.block_m) + 1}]"
            )
        if self.pages.shape != self.slots.shape or self.pages.ndim != 1:
            raise ValueError(
                f"tiles.pages has shape {list(self.pages.shape)}, tiles.slots {list(self.slots.shape)}: one each"
            )
        for name in ("start", "pages", "slots"):
            if (dtype := getattr(self, name).dtype) != torch.int32:
                raise ValueError(f"tiles.{name} has dtype {dtype}, expected torch.int32")
