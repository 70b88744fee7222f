"""Trained rows of the vocabulary (PEFT's `trainable_token_indices`) as an exact sum: E' = E + one-hot (rows - E[ids]).

The file holds the new rows themselves. What a strength weighs is their difference from the base model's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from kaito_core.api.peft.config import Refuse
from kaito_runtime.lora.records import LoraMatrix
from kaito_runtime.lora.targets import input_embedding, is_tied, output_head

__all__ = ["token_matrices"]

KEY = "trainable_token_indices"


def token_matrices(
    config: Mapping[str, Any], rows: Mapping[str, Tensor], model: nn.Module, refuse: Refuse
) -> dict[str, LoraMatrix]:
    """Returns what trained tokens add to the input embedding and to the output head.

    Args:
        config: From `parse_config`.
        rows: `[tokens, width]`, the file's new rows by module path.

    Raises:
        AdapterLoadError: Indices and rows do not belong together, or not to this model.
    """
    embedding, head = input_embedding(model), output_head(model)
    ends = {path: module for path, module in model.named_modules() if id(module) in (id(embedding), id(head))}
    indices = _indices(config.get(KEY), ends, embedding, refuse)
    if extra := sorted(set(rows) - set(indices)):
        raise refuse(
            f"'{extra[0]}.token_adapter.trainable_tokens_delta' holds trained tokens, but {KEY} does not say which"
        )
    where = {id(module): path for path, module in ends.items()}
    source = where.get(id(embedding), "")
    if is_tied(model) and source in indices and head is not None:
        # PEFT changes a tied head with the embedding, and saves the rows once.
        indices = {where[id(head)]: indices[source]} | indices
    found = {}
    for path, ids in indices.items():
        new = rows.get(path, rows.get(source) if is_tied(model) and ids == indices.get(source) else None)
        if new is None:
            raise refuse(f"{KEY} names tokens of '{path}', but the file has no rows for them; make both agree")
        weight = cast(Tensor, ends[path].weight)
        if tuple(new.shape) != (len(ids), weight.shape[1]):
            raise refuse(
                f"the trained tokens of '{path}' have shape {list(new.shape)}, but {KEY} names {len(ids)} tokens of "
                f"width {weight.shape[1]}"
            )
        found[path] = _matrix(weight, ids, new, of_input=path == source)
    return found


def _indices(
    given: Any, ends: Mapping[str, nn.Module], embedding: nn.Module | None, refuse: Refuse
) -> dict[str, list[int]]:
    """Returns the token ids by module path."""
    if not given:
        return {}
    source = next((path for path, module in ends.items() if module is embedding), "")
    by_name = given if isinstance(given, dict) else {source: given}
    found = {}
    for name, ids in by_name.items():
        path = next((path for path in ends if path == name or path.endswith(f".{name}")), None)
        if path is None:
            raise refuse(f"{KEY} names '{name}', expected {' or '.join(ends) or 'nothing'}")
        size = cast(Tensor, ends[path].weight).shape[0]
        right = isinstance(ids, list) and all(type(i) is int and 0 <= i < size for i in ids)
        if not right or len(set(ids)) < len(ids):
            raise refuse(f"{KEY} of '{name}' must list different tokens below {size}")
        found[path] = ids
    return found


def _matrix(weight: Tensor, ids: Sequence[int], new: Tensor, *, of_input: bool) -> LoraMatrix:
    base = weight.detach()[list(ids)].to("cpu", torch.float32)
    # The new rows as the base would store them: that is what PEFT puts in their places.
    difference = new.to(weight.dtype).float() - base
    chosen = torch.zeros(len(ids), weight.shape[0])
    chosen[range(len(ids)), list(ids)] = 1.0
    return LoraMatrix(chosen, difference.t(), 1.0) if of_input else LoraMatrix(difference, chosen.t(), 1.0)
