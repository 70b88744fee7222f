"""What a loaded model takes of this machine's memory, as numbers for `kaito_core.api.preset.memory`, which decides."""

from __future__ import annotations

import inspect
import logging
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from kaito_core.api.preset.memory import (
    CONTEXT_BYTES,
    GIB,
    MemoryOptions,
    MemoryPlan,
    ModelMemory,
    plan_memory,
    step_bytes,
)
from kaito_runtime.errors import ModelLoadError
from kaito_runtime.model.memory import cache_bytes_per_token, free_memory_bytes, memory_for

__all__ = ["plan_for"]

log = logging.getLogger(__name__)

_CPU_CACHE_BYTES = GIB
_CPU_SHARE = 0.8  # of what is free: other processes need some
_UNKNOWN_ROOM = 8 * GIB  # where the system does not say what is free


def plan_for(model: nn.Module, *, page_bytes: int, context_length: int, options: MemoryOptions) -> MemoryPlan:
    """Returns how the memory of this process's device is spent.

    Args:
        model: Loaded, on its device; of several ranks, this one's part.
        page_bytes: Memory of one page of adapters in all its layers.
        context_length: Longest sequence to serve, in tokens.
        options: What was asked for.

    Raises:
        ModelLoadError: The server cannot start with so much; the message has the table and what to change.
    """
    device = next(model.parameters()).device
    weights = _nbytes(model)
    per_token, per_row = _estimate(model)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, room = torch.cuda.mem_get_info(device)
        beside = max(room - free - weights, CONTEXT_BYTES)
        with memory_for("the largest step", "set --step-tokens lower, or take a GPU with more memory"):
            per_token = _measured_step(model, device, options) or per_token
    else:
        found = free_memory_bytes()
        room, beside = weights + int((_UNKNOWN_ROOM if found is None else found) * _CPU_SHARE), 0
    needs = ModelMemory(weights, cache_bytes_per_token(model), page_bytes, per_token, per_row, context_length)
    plan = plan_memory(needs, room, options, beside=beside)
    if device.type == "cpu" and options.cache_bytes is None:  # main memory is for others, too: not all of it
        usual = plan_memory(needs, room, replace(options, cache_bytes=_CPU_CACHE_BYTES), beside=beside)
        plan = usual if usual.starts else plan
    if not plan.starts:
        raise ModelLoadError(f"the memory of {device} is too small: {plan.missing}\n{plan.table()}")
    log.info("memory of %s:\n%s", device, plan.table())
    if plan.context_length < context_length:
        log.warning(
            "sequences are limited to %d tokens: the cache cannot hold one of the model's %d",
            plan.context_length,
            context_length,
        )
    return plan


def _nbytes(model: nn.Module) -> int:
    """Returns the memory of a model's tensors; tied ones count once."""
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensors.values())


def _estimate(model: Any) -> tuple[int, int]:
    """Returns the bytes of a step per token, and per row that gets a token, from the model's sizes."""
    embedding = model.get_input_embeddings().weight
    return step_bytes(embedding.shape[1], embedding.shape[0], model.dtype.itemsize)


def _measured_step(model: Any, device: torch.device, options: MemoryOptions) -> int:
    """Returns the bytes of a step per token, by running the largest; 0 where the model cannot be run like this.

    Raises:
        torch.OutOfMemoryError: There is not enough memory for it.
    """
    tokens = torch.zeros(1, options.step_tokens, dtype=torch.int64, device=device)
    # Without this, scores of every token: a step has those of the rows that get a token, which are counted apart.
    last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        with torch.inference_mode():
            model(input_ids=tokens, use_cache=False, **last)
        torch.cuda.synchronize(device)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # the engine's own check is what decides whether a model can be served
        log.info("the largest step could not be measured: %s", error)
        return 0
    return -(-(torch.cuda.max_memory_allocated(device) - before) // options.step_tokens)
