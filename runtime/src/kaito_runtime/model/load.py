"""Loads a base model and its tokenizer from a folder or a GGUF file. Adapters are read in `formats`."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging

from kaito_core.api.preset.quantization import AS_STORED
from kaito_runtime.errors import ModelLoadError, one_line
from kaito_runtime.lora.sharded import Shard
from kaito_runtime.model.kinds import check_kinds
from kaito_runtime.model.memory import memory_for
from kaito_runtime.model.quantised import quantised_arguments
from kaito_runtime.model.recipe import Recipe
from kaito_runtime.model.recipes import Recipes, installed_recipes
from kaito_runtime.options import ALONE, Ranks

__all__ = ["LoadedModel", "choose_device", "choose_dtype", "load_model"]

log = logging.getLogger(__name__)

_GGUF_MAGIC = b"GGUF"
_FALLBACK_CONTEXT = 2048
_GIVEN_GPUS = "NVIDIA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A base model, ready for LoRA layers.

    Attributes:
        model: In evaluation mode, on its device, prepared by its recipe.
        tokenizer: That of transformers, with the chat template that came with the weights.
        recipe: The recipe that prepared it.
        end_tokens: Tokens that end a sequence.
        sampling: How its maker wants tokens to be chosen, by the names of transformers' generation configuration.
        context_length: Most tokens of one sequence, as the model's configuration has it.
        shards: The parts that this rank holds of layers that are spread over several ranks, by path.
    """

    model: nn.Module
    tokenizer: Any
    recipe: Recipe
    end_tokens: frozenset[int]
    context_length: int
    shards: Mapping[str, Shard] = field(default_factory=dict)
    sampling: Mapping[str, float] = field(default_factory=dict)


def choose_device(ranks: Ranks = ALONE, wanted: str = "auto", environ: Mapping[str, str] | None = None) -> torch.device:
    """Returns this process's GPU, or the CPU.

    Args:
        ranks: This process's place among those that share the model.
        wanted: "cpu", "cuda", or "auto": a GPU if there is one.
        environ: Environment variables, in which a container runtime names the GPUs that it has given to a container.

    Raises:
        ModelLoadError: A GPU was asked for or given, and none can be used (the message has the driver's words); or this
            node has fewer GPUs than processes.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        given = (os.environ if environ is None else environ).get(_GIVEN_GPUS, "")
        # Not "all", which images have of themselves, also where there is no GPU.
        promised = f"{_GIVEN_GPUS} is '{given}'" if given.startswith(("GPU-", "MIG-")) or given[:1].isdigit() else ""
        if wanted == "cuda":
            promised = "--device is cuda"
        if promised:
            raise ModelLoadError(f"{promised}, but no GPU can be used: {_why_no_gpu()}")
        return torch.device("cpu")
    if ranks.local_rank >= torch.cuda.device_count():
        raise ModelLoadError(
            f"LOCAL_RANK is {ranks.local_rank}, but this node has {torch.cuda.device_count()} GPUs: start one process "
            "per GPU (torchrun --nproc-per-node)"
        )
    return torch.device("cuda", ranks.local_rank)


def _why_no_gpu() -> str:
    """Returns the driver's or torch's own words."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:
        return one_line(error)
    return f"torch finds {torch.cuda.device_count()} GPUs"


def choose_dtype(
    wanted: str, stored: torch.dtype | None, device: torch.device, *, cpu_has_bfloat16: bool
) -> torch.dtype:
    """Returns the type to compute in.

    Args:
        wanted: "auto" (the type that the weights are stored in) or the name of a torch dtype.
        stored: Type of the weights, if known.
        device: Where the model runs.
        cpu_has_bfloat16: The CPU has instructions for bfloat16; without them it takes several times as long.
    """
    dtype = (stored or torch.float32) if wanted == "auto" else getattr(torch, wanted)
    if device.type == "cpu" and dtype != torch.float32 and not (dtype == torch.bfloat16 and cpu_has_bfloat16):
        return torch.float32
    return dtype


def load_model(
    path: Path,
    *,
    recipe: str = "default",
    dtype: str = "auto",
    device: str = "auto",
    quantization: str = AS_STORED,
    recipes: Recipes | None = None,
    ranks: Ranks = ALONE,
) -> LoadedModel:
    """Returns the model in a Hugging Face folder (safetensors) or a GGUF file, which is dequantised.

    Args:
        path: The folder or file.
        recipe: A recipe's name; "default" takes the one for the architecture, if there is one.
        dtype: "auto" or the name of a torch dtype.
        device: "cpu", "cuda", or "auto": a GPU if there is one.
        quantization: One of `kaito_core.api.preset.quantization.QUANTIZATIONS`.
        recipes: Replaces the recipes of the installed packages.
        ranks: The processes that share the model and have already joined; each reads its part.

    Raises:
        ModelLoadError: Names the path and what is wrong with it.
    """
    source = _source(path)
    transformers_logging.disable_progress_bar()
    place = choose_device(ranks, device)
    safe = {"trust_remote_code": False, "local_files_only": True}
    try:
        config = AutoConfig.from_pretrained(**source, **safe)
        check_kinds(config)
        tokenizer = AutoTokenizer.from_pretrained(**source, **safe, config=config)
        chosen = choose_dtype(
            dtype, getattr(config, "dtype", None), place, cpu_has_bfloat16=torch.cpu._is_avx512_bf16_supported()
        )
        packed = quantised_arguments(
            config, quantization, device=place, dtype=chosen, gguf="gguf_file" in source, ranks=ranks.size
        )
        gguf = {"quantization_config": GgufConfig(dequantize=True)} if "gguf_file" in source else {}
        log.info("loading %s (%s) in %s on %s", path, config.model_type, str(chosen).removeprefix("torch."), place)
        shared = {} if ranks.size == 1 else _shared(recipes or installed_recipes(), recipe, config, ranks)
        with memory_for(f"the weights of '{path}'", "take a machine with more memory, or fewer bits (model.dtype)"):
            model = AutoModelForCausalLM.from_pretrained(
                **source, **safe, **gguf, **packed, **shared, config=config, dtype=chosen, use_safetensors=True
            )
            model = model.to(place) if ranks.size == 1 and not packed else model
    except ModelLoadError:
        raise
    except Exception as error:  # transformers raises anything, depending on file and version
        raise ModelLoadError(f"model '{path}' cannot be loaded: {one_line(error)}") from error
    chosen_recipe = (recipes or installed_recipes()).choose(recipe, [type(model).__name__])
    model.eval().requires_grad_(False)
    try:
        chosen_recipe.prepare(model)
        shards = {} if ranks.size == 1 else _cut(model, chosen_recipe, ranks)
    except Exception as error:
        raise ModelLoadError(f"recipe '{chosen_recipe.name}' cannot prepare '{path}': {one_line(error)}") from error
    end_tokens = _end_tokens(model, tokenizer)
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        recipe=chosen_recipe,
        end_tokens=end_tokens,
        sampling=_sampling(model.generation_config),
        context_length=int(getattr(config.get_text_config(), "max_position_embeddings", None) or _FALLBACK_CONTEXT),
        shards=shards,
    )


def _shared(recipes: Recipes, recipe: str, config: Any, ranks: Ranks) -> dict[str, Any]:
    """Returns the arguments that make `from_pretrained` read this rank's part."""
    from kaito_runtime.model.tensor_parallel import distributed_config  # a process on its own never needs it

    chosen = recipes.choose(recipe, getattr(config, "architectures", None) or [])
    return {"distributed_config": distributed_config(chosen, config, ranks.size)}


def _cut(model: nn.Module, recipe: Recipe, ranks: Ranks) -> Mapping[str, Shard]:
    """Turns a model of which this rank has read its part into an ordinary one; returns the parts of its layers."""
    from kaito_runtime.model.tensor_parallel import cut_model

    return cut_model(model, recipe, ranks.rank, ranks.size)


def _source(path: Path) -> dict[str, str]:
    """Returns the arguments that name the weights to transformers, once they pass the checks that it words badly."""
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_GGUF_MAGIC)) != _GGUF_MAGIC:
                raise ModelLoadError(f"model '{path}' is a file, but not a GGUF: give a GGUF file or a model's folder")
        return {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    if not path.is_dir():
        raise ModelLoadError(f"model '{path}' does not exist")
    if not (path / "config.json").is_file():
        raise ModelLoadError(f"model '{path}' has no config.json; give a Hugging Face folder")
    if not any(path.glob("*.safetensors")):
        raise ModelLoadError(f"model '{path}' has no *.safetensors; other formats can run code and are not loaded")
    return {"pretrained_model_name_or_path": str(path)}


def _sampling(generation: Any) -> Mapping[str, float]:
    """Returns what a generation configuration says about sampling, as far as it is possible here."""
    bounds: dict[str, tuple[float, float]] = {"temperature": (0, 100), "top_p": (0, 1), "min_p": (0, 1)}
    bounds["top_k"] = (0, 2**31)
    bounds["repetition_penalty"] = (0.01, 100)
    found = {name: getattr(generation, name, None) for name in bounds}
    said = {name: value for name, value in found.items() if isinstance(value, int | float)}
    kept = {name: value for name, value in said.items() if bounds[name][0] <= value <= bounds[name][1]}
    if kept.get("top_p") == 0:
        del kept["top_p"]
    if wrong := sorted(said.keys() - kept.keys()):
        log.warning("generation_config.json: %s is out of range and ignored", ", ".join(wrong))
    return kept


def _end_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    declared = [
        model.generation_config.eos_token_id,
        model.config.get_text_config().eos_token_id,
        tokenizer.eos_token_id,
    ]
    flat = [token for entry in declared for token in (entry if isinstance(entry, list) else [entry])]
    return frozenset(token for token in flat if token is not None and token >= 0)
