"""What the kernels of a step read beside matrices: the live rank pages of each tile of tokens, and the live rows."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kaito_runtime.kernels.launch import cdiv

__all__ = ["Tiles"]


@dataclass(frozen=True, slots=True)
class Tiles:
    """The live rank pages of each tile of tokens, as compressed rows.

    Attributes:
        start: `[tiles + 1]` int32; tile i owns the entries start[i] to start[i + 1].
        pages: `[entries]` int32, page numbers in the pools.
        adapters: `[entries]` int32, the column of the strength table that weighs the page.
        live: `[T]` int32, 0 for the tokens that no adapter changes.
        block_t: Tokens per tile.
        width: Most entries of any tile, or more. It sizes u and the grid, so it is known on the host.
    """

    start: Tensor
    pages: Tensor
    adapters: Tensor
    live: Tensor
    block_t: int
    width: int

    def check(self, tokens: int) -> None:
        """Checks shapes and dtypes.

        Args:
            tokens: T, in the step.

        Raises:
            ValueError: The lists do not fit `tokens`, or not one another.
        """
        if self.start.shape != (cdiv(tokens, self.block_t) + 1,):
            raise ValueError(
                f"tiles.start has shape {list(self.start.shape)}, but {tokens} tokens in tiles of {self.block_t} "
                f"need [{cdiv(tokens, self.block_t) + 1}]"
            )
        if self.pages.shape != self.adapters.shape or self.pages.ndim != 1:
            raise ValueError(
                f"tiles.pages has shape {list(self.pages.shape)}, but tiles.adapters has {list(self.adapters.shape)}"
            )
        if self.live.shape != (tokens,):
            raise ValueError(f"tiles.live has shape {list(self.live.shape)}, expected [{tokens}]")
        for name in ("start", "pages", "adapters", "live"):
            if (dtype := getattr(self, name).dtype) != torch.int32:
                raise ValueError(f"tiles.{name} has dtype {dtype}, expected torch.int32")
