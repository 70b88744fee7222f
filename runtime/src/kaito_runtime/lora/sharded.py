"""Linear layers of which every process (rank) holds a part: which part, and how the outputs are joined.

Adapters stay as exact as the base: where a rank has some rows of W, it has all of A and the same rows of B; where it
has some columns, it has the same columns of A and all of B, and the adapters' part is added to the base's before the
one sum over all ranks. The weights are cut in `model.tensor_parallel`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kaito_runtime.lora.layers import LoraLinear
from kaito_runtime.lora.pages import DensePool, PagedPool
from kaito_runtime.lora.routing import Routing

__all__ = ["Interval", "Shard", "ShardedLoraLinear", "even_interval"]

Interval = tuple[int, int]
"""[start, end)."""


def even_interval(length: int, rank: int, ranks: int) -> Interval:
    """Returns the part of `length` that `rank` holds. As with torch's `Shard`, only the last parts may be shorter."""
    each = -(-length // ranks)
    return min(rank * each, length), min((rank + 1) * each, length)


@dataclass(frozen=True, slots=True)
class Shard:
    """The part of a linear layer that is on this rank.

    Attributes:
        shape: (K, N) of the whole layer, which adapters are made for.
        rows: Intervals of N that are here, in the order of the local rows.
        columns: Interval of K that is here.
        splits_input: The layer gets the whole input and takes its own columns of it.
        joins: How the ranks' outputs become the layer's output: "not" leaves them in parts, which the next layer
            expects; "gather" puts them side by side; "sum" adds them.
    """

    shape: tuple[int, int]
    rows: tuple[Interval, ...]
    columns: Interval
    splits_input: bool = False
    joins: Literal["not", "gather", "sum"] = "not"

    @property
    def local_shape(self) -> tuple[int, int]:
        """(K, N) of the part."""
        return self.columns[1] - self.columns[0], sum(end - start for start, end in self.rows)

    def of_columns(self, a: Tensor) -> Tensor:
        """Returns this rank's part of A `[r, K]`."""
        return a[:, slice(*self.columns)]

    def of_rows(self, b: Tensor) -> Tensor:
        """Returns this rank's part of B `[N, r]`, of a weight `[N, K]` or of a bias `[N]`."""
        return b[slice(*self.rows[0])] if len(self.rows) == 1 else torch.cat([b[slice(*rows)] for rows in self.rows])


class ShardedLoraLinear(LoraLinear):
    """A `LoraLinear` that computes one rank's part and joins the outputs.

    Args:
        base: The linear layer; its weight is already cut, and so is its bias where the rows are.
        shard: What was cut.
        group: The ranks that hold the parts.
    """

    def __init__(
        self, base: nn.Module, routing: Routing, pool: DensePool | PagedPool, shard: Shard, group: dist.ProcessGroup
    ) -> None:
        # Every rank has the whole bias of a sum: it is added once, after the sum.
        late = cast(nn.Parameter | None, base.bias) if shard.joins == "sum" else None
        if late is not None:
            base.register_parameter("bias", None)
        super().__init__(base, routing, pool)
        self.adapter_shape = shard.shape
        self.late_bias: nn.Parameter | None = late
        self._shard = shard
        self._group = group
        self._ranks = dist.get_world_size(group)

    def write(self, pages: Sequence[int], a: Tensor, b: Tensor) -> None:
        """Copies this rank's part of an adapter's matrices into pages; see `LoraLinear.write`."""
        super().write(pages, self._shard.of_columns(a), self._shard.of_rows(b))

    def forward(self, x: Tensor) -> Tensor:
        """Multiplies `[..., K]` to `[..., N]`; K or N is this rank's part where the shard says so."""
        if self._shard.splits_input:
            x = x[..., slice(*self._shard.columns)]
        y = super().forward(x)
        if self._shard.joins == "sum":
            dist.all_reduce(y, group=self._group)
            return y if self.late_bias is None else y.add_(self.late_bias)
        if self._shard.joins == "gather":
            parts = [torch.empty_like(y) for _ in range(self._ranks)]
            dist.all_gather(parts, y, group=self._group)
            return torch.cat(parts, dim=-1)
        return y
