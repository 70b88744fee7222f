"""Reads a PEFT LoRA folder into tensors, and refuses what could not be applied exactly.

Files and shapes are checked here, and that configuration and tensors agree; each on its own in
`kaito_core.api.peft.config` and `tensors`. `kaito-fetch` brings the folder, `lora.bank` takes the tensors.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kaito_core.api.peft.config import CONFIG_FILE, FROM_MLX, MLX_FILE, Refuse, parse_config, rank_and_scaling
from kaito_runtime.errors import AdapterLoadError, is_out_of_memory
from kaito_runtime.formats.experts import MixtureTensors, expected_parameters, expert_matrices, split_experts
from kaito_runtime.formats.peft_config import is_pefts_default, targeted
from kaito_runtime.formats.tensors import Pair, sort_tensors
from kaito_runtime.formats.tokens import token_matrices
from kaito_runtime.formats.wrapped import Names, names_of
from kaito_runtime.lora.records import AdapterWeights, LoraMatrix
from kaito_runtime.lora.targets import (
    embedding_shape,
    input_embedding,
    is_tied,
    linear_shape,
    output_head,
    router_shape,
)

__all__ = ["read_adapter"]

WEIGHTS_FILE = "adapter_model.safetensors"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "pytorch_model.bin")
KINDS = "a linear layer"
RefuseAdapter = Callable[[str], AdapterLoadError]
# Bytes. PEFT writes a few kilobytes, more where each module has its own rank.
LARGEST_CONFIG = 1 << 20
SPARE_BYTES = 64 << 20


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
    content = hashlib.sha256(config_bytes)
    content.update(weight_bytes)  # not joined: that would copy all tensors
    found = f"sha256:{content.hexdigest()}"
    if digest is not None and digest != found:
        raise refuse(f"its digest is {found}, the Workspace asks for {digest}")
    config = parse_config(config_bytes, refuse, has_no_effect=is_pefts_default)
    raw = _parse_tensors(weight_bytes, refuse)
    names = names_of(raw, model)
    tensors = sort_tensors(_renamed(raw, names, refuse), model, refuse)
    _check_whole_modules(config, model, tensors.copies, refuse)
    shapes = _shapes(model)
    mixture = split_experts(tensors.linear, config, model, refuse)
    pairs = _pairs(mixture.plain, tensors.embedding, model, shapes, refuse)
    matrices = token_matrices(config, tensors.tokens, model, refuse)
    targets = _check_targets(config, model, shapes, pairs, mixture, refuse, names)
    matrices |= expert_matrices(mixture, config, model, refuse)
    for module in sorted(targets & set(shapes)):
        if module in matrices:
            raise refuse(
                f"'{module}' has both lora_A and lora_B and trained tokens; train the adapter with one of them"
            )
        rank, scaling = rank_and_scaling(config, names.there(module), refuse)
        _check_shapes(module, rank, pairs[module], shapes[module], refuse)
        matrices[module] = LoraMatrix(*pairs[module], scaling)
    return AdapterWeights(name, found, matrices)


def _read_files(path: Path, model: nn.Module, refuse: RefuseAdapter) -> tuple[bytes, bytes]:
    if not path.is_dir():
        raise refuse(f"'{path}' is not a folder")
    # An adapter of full rank in float64, and room for the header.
    stacked = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 3)
    most = 8 * (stacked + sum(k * n for k, n in _shapes(model).values())) + SPARE_BYTES
    if not (path / CONFIG_FILE).is_file():
        raise refuse(f"'{path}' has no {CONFIG_FILE}; is it a PEFT adapter?")
    if not (path / WEIGHTS_FILE).is_file():
        if (path / MLX_FILE).exists():
            raise refuse(f"{MLX_FILE} is what MLX saves; {FROM_MLX}")
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


def _read(folder: Path, name: str, most: int, refuse: RefuseAdapter) -> bytes:
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


def _renamed(tensors: Mapping[str, Tensor], names: Names, refuse: Refuse) -> Mapping[str, Tensor]:
    """Returns the tensors under the names that the model has."""
    renamed = {names.here(key): tensor for key, tensor in tensors.items()}
    if len(renamed) < len(tensors):
        raise refuse("there are tensors for a module under two names; save the adapter again")
    return renamed


def _shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Returns (K, N) of each module that can be adapted, by path: linear layers, routers, and the input embedding."""
    shapes = {path: shape for path, module in model.named_modules() if (shape := linear_shape(module)) is not None}
    embedding = id(input_embedding(model))
    for path, module in model.named_modules():
        if (shape := router_shape(module)) is not None:
            shapes[path] = shape
        if id(module) == embedding and (shape := embedding_shape(module)) is not None:
            shapes[path] = shape
    return shapes


def _check_whole_modules(config: Mapping[str, Any], model: nn.Module, copies: Collection[str], refuse: Refuse) -> None:
    """Checks that there are tensors for `modules_to_save`; `sort_tensors` has found them equal to the base model's."""
    for name in config.get("modules_to_save") or ():
        weights = [
            f"{path}.{weight}"
            for path, module in model.named_modules()
            if path == name or path.endswith(f".{name}")
            for weight, _ in module.named_parameters()
        ]
        if missing := [weight for weight in weights if weight not in copies]:
            raise refuse(f"modules_to_save names '{name}', but {WEIGHTS_FILE} has no '{missing[0]}'; make both agree")


def _pairs(
    linear: Mapping[str, Pair],
    embedding: Mapping[str, Pair],
    model: nn.Module,
    shapes: Mapping[str, tuple[int, int]],
    refuse: Refuse,
) -> dict[str, Pair]:
    """Returns A and B by module, each of a kind that its tensors are named for."""
    modules = dict(model.named_modules())
    for pairs, is_embedding in ((linear, False), (embedding, True)):
        for path in pairs:
            module = modules.get(path)
            if path in shapes and module is not None and (embedding_shape(module) is not None) is is_embedding:
                continue
            what = "not in the base model" if module is None else f"a {type(module).__name__}, not {KINDS}"
            raise refuse(f"there are tensors for '{path}', which is {what}; was it trained on another model?")
    return {**linear, **embedding}


def _tie_head(config: Mapping[str, Any], model: nn.Module, named: set[str], pairs: dict[str, Pair]) -> None:
    """Adds the output head where PEFT ties its adapter to that of the embedding (`ensure_weight_tying`)."""
    if not (config.get("ensure_weight_tying") and is_tied(model)):
        return
    paths = {id(module): path for path, module in model.named_modules()}
    source, head = (paths.get(id(module), "") for module in (input_embedding(model), output_head(model)))
    if source in named and source in pairs and head:
        a, b = pairs[source]
        pairs.setdefault(head, (b.t(), a.t()))
        named.add(head)


def _check_targets(
    config: Mapping[str, Any],
    model: nn.Module,
    shapes: Collection[str],
    pairs: dict[str, Pair],
    mixture: MixtureTensors,
    refuse: Refuse,
    names: Names,
) -> set[str]:
    """Returns what the configuration targets, which must be that which there are tensors for."""
    parameters = expected_parameters(config, model, refuse)
    there = {*pairs, *mixture.stacked, *mixture.single}
    target = config.get("target_modules")
    if target is None and not parameters:
        return there  # PEFT saves null only where its own table chose the modules: the tensors say which
    named: set[str] = set()
    if target:
        others = [path for path, _ in model.named_modules() if path and path not in shapes]
        linears = {path for path in shapes if linear_shape(model.get_submodule(path)) is not None}
        if mixture.names:  # where experts were linear layers, so were routers
            linears |= {path for path in shapes if router_shape(model.get_submodule(path)) is not None}
        candidates = [*shapes, *mixture.names]
        named = targeted(config, model, candidates, {*linears, *mixture.names}, others, refuse, names)
    if not named and (target or not parameters):
        raise refuse(f"target_modules {target!r} matches no module of the base model; was it trained on another model?")
    named |= parameters
    _tie_head(config, model, named, pairs)
    there |= set(pairs)
    if extra := sorted(there - named):
        raise refuse(f"there are tensors for '{extra[0]}', which target_modules does not include; make both agree")
    if missing := sorted(named - there):
        raise refuse(
            f"target_modules includes '{missing[0]}', but {WEIGHTS_FILE} has no tensors for it; make both agree"
        )
    return named


def _check_shapes(module: str, rank: int, pair: Pair, shape: tuple[int, int], refuse: Refuse) -> None:
    (a, b), (k, n) = pair, shape
    for half, tensor, expected in (("A", a, (rank, k)), ("B", b, (n, rank))):
        if tuple(tensor.shape) != expected:
            raise refuse(
                f"lora_{half} of '{module}' has shape {list(tensor.shape)}, but rank {rank} on the base model's "
                f"[{n}, {k}] layer needs {list(expected)}; was it trained on another model?"
            )
