"""Reads a PEFT LoRA folder into tensors, and refuses what could not be applied exactly.

Files, tensors and shapes are checked here, the meaning of the configuration in `peft_config`. `adapters.fetch` brings
the folder, `lora.bank` takes the tensors.
"""

import hashlib
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kaito_runtime.errors import AdapterLoadError, is_out_of_memory
from kaito_runtime.formats.keys import REFUSED
from kaito_runtime.formats.peft_config import CONFIG_FILE, LARGEST, Refuse, parse_config, rank_and_scaling, targeted
from kaito_runtime.lora.records import AdapterWeights, LoraMatrix
from kaito_runtime.lora.targets import linear_shape

__all__ = ["read_adapter"]

WEIGHTS_FILE = "adapter_model.safetensors"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "pytorch_model.bin")
PREFIX = "base_model.model."
LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")
# Bytes. PEFT writes a few kilobytes, more where each module has its own rank.
LARGEST_CONFIG = 1 << 20
SPARE_BYTES = 64 << 20
DTYPES = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})


def read_adapter(path: Path, model: nn.Module, *, name: str, digest: str | None = None) -> AdapterWeights:
    """Reads the PEFT folder `path` and checks it against `model`.

    Args:
        path: Folder with `adapter_config.json` and `adapter_model.safetensors`.
        model: The base model, before or after `inject_lora`.
        name: The adapter's name, for messages and requests.
        digest: "sha256:..." that the content must have, or None.

    Raises:
        AdapterLoadError: The folder is incomplete or damaged, its content does not have the digest, or it holds
            something that could not be applied exactly.
    """

    def refuse(reason: str) -> AdapterLoadError:
        return AdapterLoadError(name, reason)

    config_bytes, weight_bytes = _read_files(Path(path), model, refuse)
    # The digest is taken over the very bytes that are parsed below, so nothing can change in between.
    found = "sha256:" + hashlib.sha256(config_bytes + weight_bytes).hexdigest()
    if digest is not None and digest != found:
        raise refuse(f"its digest is {found}, the Workspace asks for {digest}")
    config = parse_config(config_bytes, refuse)
    pairs = _pair_tensors(_parse_tensors(weight_bytes, refuse), model, refuse)
    targets = _expected_targets(config, model, pairs, refuse)
    matrices = {}
    for module in sorted(targets):
        rank, scaling = rank_and_scaling(config, module, refuse)
        _check_shapes(module, rank, *pairs[module], model, refuse)
        matrices[module] = LoraMatrix(*pairs[module], scaling)
    return AdapterWeights(name, found, matrices)


def _read_files(path: Path, model: nn.Module, refuse: Refuse) -> tuple[bytes, bytes]:
    if not path.is_dir():
        raise refuse(f"'{path}' is not a folder")
    # An adapter of full rank in float64, and room for the header.
    most = sum(8 * k * n for k, n in _linears(model).values()) + SPARE_BYTES
    if not (path / CONFIG_FILE).is_file():
        raise refuse(f"'{path}' has no {CONFIG_FILE}; is it a PEFT adapter?")
    if not (path / WEIGHTS_FILE).is_file():
        if any((path / name).exists() for name in PICKLES):
            name = next(name for name in PICKLES if (path / name).exists())
            raise refuse(
                f"{name} is a pickle, which can run code when loaded; convert it to {WEIGHTS_FILE} "
                "(PEFT: save_pretrained(..., safe_serialization=True))"
            )
        if shards := sorted(shard.name for shard in path.glob("adapter_model-*-of-*.safetensors")):
            raise refuse(
                f"the weights are split over {len(shards)} files ({shards[0]}, ...); save them as {WEIGHTS_FILE}"
            )
        raise refuse(f"'{path}' has no {WEIGHTS_FILE}")
    return _read(path, CONFIG_FILE, LARGEST_CONFIG, refuse), _read(path, WEIGHTS_FILE, most, refuse)


def _read(folder: Path, name: str, most: int, refuse: Refuse) -> bytes:
    try:
        root, file = folder.resolve(strict=True), (folder / name).resolve(strict=True)
        # The hub's cache links from .../snapshots/REVISION to .../blobs. Other links could name any file here.
        blobs = root.parents[1] / "blobs" if root.parent.name == "snapshots" else root
        if not (file.is_relative_to(root) or file.is_relative_to(blobs)):
            raise refuse(f"{name} is a link to a file outside of its folder; copy the file instead")
        with file.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size > most:
                raise refuse(f"{name} has more than {most} bytes, the most that an adapter of this model can need")
            return stream.read()
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        refusal = refuse(f"'{folder / name}' cannot be read: {error}")
        refusal.transient = isinstance(error, OSError)  # a file system that answers again
        raise refusal from error


def _parse_tensors(content: bytes, refuse: Refuse) -> dict[str, Tensor]:
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        if is_out_of_memory(error):
            raise
        raise refuse(f"{WEIGHTS_FILE} is damaged: {error}; fetch or save it again") from error
    if not tensors:
        raise refuse(f"{WEIGHTS_FILE} holds no tensors; save the adapter again")
    return tensors


def _pair_tensors(tensors: Mapping[str, Tensor], model: nn.Module, refuse: Refuse) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns A and B of each module. Every tensor must be one of them."""
    modules = dict(model.named_modules())
    halves: dict[str, dict[str, Tensor]] = {}
    adapters: dict[str | None, str] = {}  # from the name in a key to the first key with that name
    for key, tensor in sorted(tensors.items()):
        bare = key.removeprefix(PREFIX)
        match = LORA_KEY.fullmatch(bare)
        if match is None:
            raise refuse(f"tensor '{key}' {_what_it_is(bare, tensor, modules)}")
        module_path, half = match["module"], match["half"]
        if half in halves.setdefault(module_path, {}):
            raise refuse(f"tensor '{key}': '{module_path}' has more than one lora_{half}; save one adapter per folder")
        adapters.setdefault(match["adapter"], key)
        _check_values(key, tensor, refuse)
        halves[module_path][half] = tensor
    if len(adapters) > 1:
        first, second = list(adapters.values())[:2]
        raise refuse(f"tensors '{first}' and '{second}' belong to two adapters; save one adapter per folder")
    for module_path, pair in halves.items():
        for half in "AB":
            if half not in pair:
                raise refuse(f"'{module_path}' has no lora_{half}, only the other half; save the adapter again")
    return {module_path: (pair["A"], pair["B"]) for module_path, pair in halves.items()}


def _what_it_is(bare: str, tensor: Tensor, modules: Mapping[str, nn.Module]) -> str:
    """Says what a tensor is that is neither lora_A nor lora_B, and what to do about it."""
    if "lora_embedding_" in bare:
        return "adapts an embedding; only linear layers can be adapted"
    if "lora_magnitude_vector" in bare:
        return f"belongs to DoRA: {REFUSED['use_dora']}"
    if "lora_diag" in bare:
        return f"belongs to KaSA: {REFUSED['kasa_config']}"
    if "trainable_tokens" in bare:
        return f"holds trained tokens: {REFUSED['trainable_token_indices']}"
    if bare.endswith(".bias"):
        return "is a trained bias, which cannot be weighted by a strength; train with bias='none' and lora_bias=False"
    if ".base_layer." in bare:
        return (
            "is a copy of a base weight, which PEFT saves where an embedding or the output head is adapted; "
            "only the linear layers inside the model can be adapted"
        )
    if isinstance(modules.get(bare.removesuffix(".weight")), nn.Embedding):
        return (
            f"{list(tensor.shape)} replaces an embedding or extends the vocabulary; "
            "train the adapter without resizing the embeddings"
        )
    return "is not lora_A or lora_B of a module, and nothing else can be weighted by a strength; save a PEFT LoRA"


def _check_values(key: str, tensor: Tensor, refuse: Refuse) -> None:
    if tensor.dtype not in DTYPES:
        raise refuse(f"tensor '{key}' has dtype {tensor.dtype}, expected a floating-point type of 16 bits or more")
    peak = tensor.abs().max().item() if tensor.numel() else 0.0
    if not math.isfinite(peak):
        raise refuse(
            f"tensor '{key}' holds NaN or infinite values; take a checkpoint from before the training diverged"
        )
    if peak > LARGEST:
        raise refuse(f"tensor '{key}' holds a value of magnitude {peak:g}; the largest accepted is {LARGEST:g}")


def _expected_targets(
    config: Mapping[str, Any], model: nn.Module, pairs: Mapping[str, object], refuse: Refuse
) -> Iterable[str]:
    """Returns the modules that the configuration targets, which must be those that there are tensors for."""
    linears = _linears(model)
    modules = dict(model.named_modules())
    for module_path in pairs:
        if module_path not in linears:
            module = modules.get(module_path)
            what = "not in the base model" if module is None else f"a {type(module).__name__}, not a linear layer"
            raise refuse(f"there are tensors for '{module_path}', which is {what}; was it trained on another model?")
    if config.get("target_modules") is None:
        return list(pairs)  # PEFT saves null only where its own table chose the modules: the tensors say which
    others = [path for path in modules if path and path not in linears]
    named = targeted(config, model, linears, others, refuse)
    if not named:
        target = config["target_modules"]
        raise refuse(f"target_modules {target!r} matches no module of the base model; was it trained on another model?")
    if extra := sorted(set(pairs) - named):
        raise refuse(f"there are tensors for '{extra[0]}', which target_modules does not include; make both agree")
    if missing := sorted(named - set(pairs)):
        raise refuse(
            f"target_modules includes '{missing[0]}', but {WEIGHTS_FILE} has no tensors for it; make both agree"
        )
    return named


def _linears(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Returns (K, N) of each linear layer, by path."""
    return {path: shape for path, module in model.named_modules() if (shape := linear_shape(module)) is not None}


def _check_shapes(module: str, rank: int, a: Tensor, b: Tensor, model: nn.Module, refuse: Refuse) -> None:
    shape = linear_shape(model.get_submodule(module))
    assert shape is not None, "only linear layers get here"
    k, n = shape
    for half, tensor, expected in (("A", a, (rank, k)), ("B", b, (n, rank))):
        if tuple(tensor.shape) != expected:
            raise refuse(
                f"lora_{half} of '{module}' has shape {list(tensor.shape)}, but rank {rank} on the base model's "
                f"[{n}, {k}] layer needs {list(expected)}; was it trained on another model?"
            )
