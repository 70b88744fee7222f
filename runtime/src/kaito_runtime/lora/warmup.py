"""Runs every kernel that a server can meet once, so that none is compiled while requests wait."""

from __future__ import annotations

import torch

from kaito_runtime.kernels.launch import TILES
from kaito_runtime.lora.embedding import LoraEmbedding
from kaito_runtime.lora.inject import LoraModel
from kaito_runtime.lora.layers import LoraLinear
from kaito_runtime.lora.pages import PagedPool
from kaito_runtime.lora.records import AdapterWeights, LoraMatrix

__all__ = ["warm_kernels"]


def warm_kernels(lora: LoraModel, step_tokens: int) -> int:
    """Computes a step of each size of tile in a layer of each kind, with an adapter of zeros in the pools.

    A binary depends on the tile, on the layer's shape, dtype and bias, and on whether all tokens have an adapter. It
    depends neither on the number of tokens nor on adapters and strengths.

    Args:
        lora: Its pools are still empty.
        step_tokens: Most tokens of one step.

    Returns:
        The number of layer passes; 0 where the layers do not use the kernels' pages.
    """
    kinds = {
        layer.kind: (path, layer)
        for path, layer in lora.layers.items()
        if isinstance(layer, (LoraLinear, LoraEmbedding)) and isinstance(layer.pool, PagedPool)
    }
    if not kinds:
        return 0
    matrices = {
        path: LoraMatrix(torch.zeros(1, layer.adapter_shape[0]), torch.zeros(layer.adapter_shape[1], 1), 1.0)
        for path, layer in kinds.values()
    }
    version = lora.bank.load(AdapterWeights("warm-up", "", matrices))
    passes = 0
    try:
        # The smallest step of each size of tile that can have a row without an adapter beside one with it.
        for tokens in [2, *(tile + 1 for tile in TILES[:-1] if tile < step_tokens)]:
            for base_rows in (0, 1):
                lora.routing.set([(tokens - base_rows, {version: 1.0}), (base_rows, {})])
                for _, layer in kinds.values():
                    _run(layer, tokens)
                    passes += 1
    finally:
        lora.routing.clear()
        lora.bank.retire(version)
    return passes


@torch.inference_mode()
def _run(layer: LoraLinear | LoraEmbedding, tokens: int) -> None:
    pool = layer.pool
    assert isinstance(pool, PagedPool)
    if isinstance(layer, LoraEmbedding):
        layer(torch.zeros(tokens, dtype=torch.int64, device=pool.device))
    else:  # of a sharded one this rank's part alone: its output is joined with none
        LoraLinear.forward(layer, torch.zeros(tokens, layer.in_features, device=pool.device, dtype=pool.dtype))
