"""The layer that replaces the input embedding. The sum is that of a linear layer whose input is one-hot."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from kaito_runtime.lora.pages import PAGE, DensePool, PagedPool
from kaito_runtime.lora.records import ScalingTable
from kaito_runtime.lora.routing import Routing
from kaito_runtime.lora.step_paged import PagedStep

__all__ = ["LoraEmbedding"]


class LoraEmbedding(nn.Module):
    """y = E[token] + sum_i s_i * scaling_i * B_i A_i[:, token] with the strengths that `routing` holds for each token.

    Tokens without a live adapter get the bits of the embedding that it replaces. A model's own factor on its embedding
    (`embed_scale`) weighs the adapters too, as in PEFT.

    Shapes:
        Token ids of any shape to `[..., N]`; they are flattened to tokens in order.

    Attributes:
        lora_shape: (K, N): tokens of the vocabulary, and width.
        adapter_shape: The same.
        pool: The layer's rank pages.
        scalings: The scaling of each resident adapter in this layer; the bank sets it.
    """

    def __init__(self, base: nn.Embedding, routing: Routing, pool: DensePool | PagedPool) -> None:
        super().__init__()
        self.weight = base.weight
        self.lora_shape = self.adapter_shape = (base.num_embeddings, base.embedding_dim)
        self.pool = pool
        self.scalings = ScalingTable({})
        self._routing = routing
        self._base_forward = base.forward
        scale = getattr(base, "embed_scale", None)
        self._scale = 1.0 if scale is None else float(scale)

    @property
    def num_embeddings(self) -> int:
        """Tokens of the vocabulary."""
        return self.lora_shape[0]

    @property
    def embedding_dim(self) -> int:
        """Width."""
        return self.lora_shape[1]

    @property
    def kind(self) -> tuple[object, ...]:
        """What the choice of kernels depends on; layers of one kind share their binaries."""
        return ("embedding", *self.lora_shape)

    @property
    def page_bytes(self) -> int:
        """Memory of one rank page, in bytes."""
        return sum(self.lora_shape) * PAGE * self.pool.itemsize

    def forward(self, ids: Tensor) -> Tensor:
        """Looks up every token, in the base and in the adapters that are live on it.

        Raises:
            ValueError: The step was set for another number of tokens.
        """
        y = self._base_forward(ids)
        step = self._routing.step
        if step is None:
            return y
        if ids.numel() != step.tokens:
            raise ValueError(
                f"the strengths are set for {step.tokens} tokens, the embedding got {ids.numel()} ({list(ids.shape)})"
            )
        tokens, rows_y = ids.reshape(-1), y.view(-1, self.embedding_dim)
        if isinstance(step, PagedStep):
            work = step.work(self.scalings)
            if work is not None:
                from kaito_runtime.kernels.paged import paged_embed_add_  # imports Triton, which a CPU never needs

                pools = cast(PagedPool, self.pool).pools
                paged_embed_add_(rows_y, tokens, *pools, work.s * self._scale, work.tiles)
            return y
        for rows, a_t, b_t, s in step.plan(cast(DensePool, self.pool), self.scalings):
            here = slice(None) if rows is None else rows
            added = ((a_t[tokens[here]] * s) * self._scale).mm(b_t)
            rows_y[here] = rows_y[here].add_(added)
        return y

    def write(self, pages: Sequence[int], a: Tensor, b: Tensor) -> None:
        """Copies an adapter's `a` `[r, K]` and `b` `[N, r]` into `pages`, padded with zeros."""
        self.pool.write(pages, a, b)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"
