"""Rotary tables that depend on a sequence's length (long-rope, dynamic NTK), for batches of sequences.

transformers chooses one table for all tokens of a pass, by the largest position in it. In a batch that is the table of
the longest sequence, and the others would compute something else beside it than alone. Here each sequence gets the
table of its own length. Where the table changes while a sequence grows, all its keys must be computed again, as
transformers' own `generate` does for Phi-3.

Source: Ding et al., LongRoPE, https://arxiv.org/abs/2402.13753; transformers.modeling_rope_utils.dynamic_rope_update.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["RotaryTables"]

Rotary = Tensor | tuple[Tensor, ...]


class RotaryTables:
    """The rotary embeddings of a model whose tables depend on a sequence's length; of most models, there are none.

    Args:
        model: Those of its modules are changed: within a pass that `set` describes, they compute each sequence alone.

    Attributes:
        boundaries: Lengths in tokens beyond which another table holds, rising.
    """

    def __init__(self, model: nn.Module) -> None:
        steps: set[int] = set()  # beyond each there is one other table
        ramps: set[int] = set()  # beyond each there is another table for each length
        self._groups: list[tuple[list[int], int]] = []
        for module in model.modules():
            found = _boundaries(module)
            for kind, boundary in found:
                (ramps if kind == "dynamic" else steps).add(boundary)
            if found:
                grows = any(kind == "dynamic" for kind, _ in found)
                module.forward = partial(self._forward, module.forward, grows)
        self.boundaries = tuple(sorted(steps | ramps))
        self._ramp = min(ramps, default=None)

    def table_of(self, tokens: int) -> int:
        """Returns a number for the table of a sequence of so many tokens; equal numbers, equal tables."""
        if self._ramp is not None and tokens > self._ramp:
            return tokens
        return -sum(tokens > boundary for boundary in self.boundaries)

    def set(self, sequences: Sequence[tuple[int, int]]) -> None:
        """Describes the next pass.

        Args:
            sequences: (tokens in the pass, tokens in all) of each sequence, in packed order.
        """
        places: dict[int, tuple[list[int], int]] = {}
        start = 0
        for tokens, length in sequences:
            of_table, _ = places.setdefault(self.table_of(length), ([], length))
            of_table += range(start, start + tokens)
            start += tokens
        self._groups = list(places.values())

    def clear(self) -> None:
        """Ends the pass: what is computed now is one sequence."""
        self._groups = []

    def _forward(
        self, forward: Callable[..., Rotary], grows: bool, x: Tensor, position_ids: Tensor, **kwargs: Any
    ) -> Rotary:
        """Computes the groups one after the other.

        Shapes:
            position_ids: [1, T]. Returns [1, T, D], or several of them.
        """

        def alone(positions: Tensor) -> Rotary:
            if grows:  # until a short sequence resets the table
                forward(x, position_ids.new_zeros(1, 1), **kwargs)
            return forward(x, positions, **kwargs)

        if not self._groups:
            return alone(position_ids)
        parts = []
        for places, length in self._groups:
            # One position more, which is left out again: transformers chooses the table by the largest one.
            last = position_ids.new_full((1, 1), length - 1)
            found = alone(torch.cat([position_ids[:, places], last], 1))
            parts.append(tuple(one[:, :-1] for one in (found if isinstance(found, tuple) else (found,))))
        if len(parts) == 1:
            joined = parts[0]
        else:
            order = torch.tensor([place for places, _ in self._groups for place in places], device=x.device)
            joined = tuple(torch.cat(ones, 1).index_select(1, order.argsort()) for ones in zip(*parts, strict=True))
        return joined if len(joined) > 1 else joined[0]


def _boundaries(module: nn.Module) -> list[tuple[str, int]]:
    """Returns (kind, length) of each table of a rotary embedding that depends on length; nothing of other modules."""
    kinds: Any = getattr(module, "rope_type", None)
    config: Any = getattr(module, "config", None)
    parameters = getattr(config, "rope_parameters", None)
    if kinds is None or not parameters:
        return []
    of_layers = [(kinds, parameters)] if isinstance(kinds, str) else [(kinds[name], parameters[name]) for name in kinds]
    found = []
    for kind, fields in of_layers:
        if "dynamic" in kind:
            found.append(("dynamic", int(config.max_position_embeddings)))
        elif kind == "longrope":
            found.append(("longrope", int(fields["original_max_position_embeddings"])))
    return found
