"""From configuration and command line to a model with LoRA layers, its limits, and the engine that computes it."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from kaito_core.api.preset.memory import GIB, MemoryOptions
from kaito_core.api.quantity import parse_bytes
from kaito_core.api.serving import ServedModel, ServingConfig
from kaito_runtime.engine.protocol import NO_DEFAULTS, Sampling
from kaito_runtime.engine.runner import Runner
from kaito_runtime.engine.torch_engine import TorchEngine
from kaito_runtime.errors import ModelLoadError, one_line
from kaito_runtime.lora.inject import LoraModel, inject_lora
from kaito_runtime.lora.warmup import warm_kernels
from kaito_runtime.model.budget import plan_for
from kaito_runtime.model.load import LoadedModel, load_model
from kaito_runtime.model.memory import BatchLimits, cpu_limit, free_memory_bytes, memory_for
from kaito_runtime.openai.codec import HuggingFaceCodec, TextCodec
from kaito_runtime.options import ALONE, ServeOptions
from kaito_runtime.ranks.group import Group
from kaito_runtime.ranks.lead import Lead

__all__ = ["BuiltModel", "build_engine", "build_model"]

log = logging.getLogger(__name__)

_PACKED_SHARE = 0.25  # of what is free after the weights: cache, adapters and other pods need memory too


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model, or this rank's part of it, with everything that is fixed at the start.

    Attributes:
        loaded: The model and what came with it.
        lora: The bank and the routing of its LoRA layers.
        limits: Sizes of batch and cache, the same on all ranks.
        context_length: Longest sequence, in tokens.
    """

    loaded: LoadedModel
    lora: LoraModel
    limits: BatchLimits
    context_length: int


def build_engine(
    config: ServingConfig, options: ServeOptions, group: Group | None = None
) -> tuple[TorchEngine, TextCodec]:
    """Loads the model and returns an engine for it, and its tokenizer.

    Args:
        group: The ranks that share the model, of which this process is rank 0; None where it has the model alone.

    Raises:
        ModelLoadError: The model cannot be served.
        GroupLostError: Another rank could not load it.
    """
    started = time.monotonic()
    built = build_model(config, options, group)
    loaded, lora, limits = built.loaded, built.lora, built.limits
    if group is None:
        runner = Runner(loaded.model, lora, limits)
    else:
        runner = Lead(loaded.model, lora, limits, group, options.adapters_dir)
    engine = TorchEngine(
        loaded.model,
        runner,
        end_tokens=loaded.end_tokens,
        context_length=built.context_length,
        max_waiting=options.max_waiting,
        default_sampling=Sampling(**loaded.sampling) if options.model_defaults else NO_DEFAULTS,  # type: ignore[arg-type]
    )
    if options.chat_template is not None:
        loaded.tokenizer.chat_template = options.chat_template
    if options.model_defaults and loaded.sampling:
        defaults = ", ".join(f"{name} {value:g}" for name, value in loaded.sampling.items())
        log.info("requests that say nothing else get the model's own sampling: %s", defaults)
    log.info(
        "model ready in %.1f s: recipe '%s', context %d tokens, cache %d tokens",
        time.monotonic() - started,
        loaded.recipe.name,
        engine.context_length,
        limits.cache_tokens,
    )
    return engine, HuggingFaceCodec(loaded.tokenizer, loaded.end_tokens, loaded.recipe.tool_formats)


def build_model(config: ServingConfig, options: ServeOptions, group: Group | None) -> BuiltModel:
    """Loads the model, or this rank's part of it, and replaces its linear layers by LoRA layers.

    Args:
        group: The ranks that share the model. All call this at the same time; rank 0's configuration and options
            decide for all.

    Raises:
        ModelLoadError: The model cannot be served, or the ranks have different weights.
        GroupLostError: Another rank could not load it.
    """
    model, pack, memory = config.model, options.pack_weights, _memory_options(config.model, options)
    if group is not None:
        fields, pack, asked = group.exchange((model.model_dump(), pack, asdict(memory)))[0]
        model, memory = ServedModel.model_validate(fields), MemoryOptions(**asked)
    ranks = ALONE if group is None else group.ranks
    _limit_threads()
    loaded = load_model(
        options.model,
        recipe=model.recipe,
        dtype=model.dtype,
        device=options.device,
        quantization=options.quantization or model.quantization,
        ranks=ranks,
    )
    with memory_for("packed weights", "serve with --no-pack-weights"):
        lora = inject_lora(
            loaded.model,
            exclude=loaded.recipe.lora_exclude,
            pack=_has_room_to_pack(loaded.model) if pack is None else pack,
            shards=loaded.shards,
            group=None if group is None else group.model,
        )
    context = min(model.context_length or loaded.context_length, loaded.context_length)
    plan = plan_for(loaded.model, page_bytes=lora.page_bytes, context_length=context, options=memory)
    pages = plan.adapter_pages
    limits = BatchLimits(
        cache_tokens=plan.cache_tokens,
        step_tokens=memory.step_tokens,
        requests=memory.batch_requests,
        reuse_prefixes=options.reuse_prefixes,
    )
    if group is not None:
        found = group.exchange((_fingerprint(options.model), asdict(limits), pages))
        _compare([fingerprint for fingerprint, *_ in found])
        # All ranks must schedule the same.
        limits = BatchLimits(**found[0][1] | {"cache_tokens": min(limits["cache_tokens"] for _, limits, _ in found)})
        pages = min(pages for *_, pages in found)
    with memory_for(f"{pages} pages of adapters", "set --adapter-memory lower"):
        lora.reserve(pages, max_rank=memory.max_adapter_rank)
    _warm(lora, limits)
    return BuiltModel(loaded, lora, limits, min(context, limits.cache_tokens))


def _warm(lora: LoraModel, limits: BatchLimits) -> None:
    """Compiles the kernels now: in the engine's thread, every client would wait for it."""
    started = time.monotonic()
    try:
        passes = warm_kernels(lora, limits.step_tokens)
    except Exception as error:  # Triton's and the driver's have no common class
        raise ModelLoadError(
            f"the kernels of the adapters cannot be compiled or run here: {one_line(error)}"
        ) from error
    if passes:
        log.info("kernels ready in %.1f s, after %d passes", time.monotonic() - started, passes)


def _memory_options(model: ServedModel, options: ServeOptions) -> MemoryOptions:
    try:
        configured = None if model.adapter_memory is None else parse_bytes(model.adapter_memory)
    except ValueError as error:
        raise ModelLoadError(f"model.adapterMemory {error}") from error
    return MemoryOptions(
        step_tokens=options.step_tokens,
        batch_requests=options.batch_requests,
        adapter_bytes=configured if options.adapter_bytes is None else options.adapter_bytes,
        max_adapter_rank=options.max_adapter_rank or model.max_adapter_rank,
        cache_bytes=None if options.cache_gib is None else int(options.cache_gib * GIB),
    )


def _limit_threads() -> None:
    limit = cpu_limit()
    if limit is not None and limit < torch.get_num_threads():
        torch.set_num_threads(limit)


def _has_room_to_pack(model: nn.Module) -> bool:
    free = free_memory_bytes()
    return free is not None and sum(p.nbytes for p in model.parameters()) <= free * _PACKED_SHARE


def _fingerprint(path: Path) -> str:
    """Returns a hash that differs for most other weights: of config.json and file sizes, to read little."""
    files = [path] if path.is_file() else sorted([path / "config.json", *path.glob("*.safetensors")])
    found = hashlib.sha256()
    for file in files:
        found.update(f"{file.name} {file.stat().st_size}\n".encode())
        if file.suffix == ".json":
            found.update(file.read_bytes())
    return found.hexdigest()


def _compare(fingerprints: Sequence[str]) -> None:
    if different := [rank for rank, found in enumerate(fingerprints) if found != fingerprints[0]]:
        raise ModelLoadError(
            f"rank {', '.join(map(str, different))} has other weights than rank 0: config.json or the sizes of "
            "*.safetensors differ; fetch the same revision on every node"
        )
