"""Reads a PEFT LoRA folder into tensors, and refuses whatever could not be applied exactly.

Here live the files, their tensors and their shapes; what the configuration means is in `lora.peft_config`. Where the
tensors go afterwards is `lora.bank`'s business; where the folder came from is the adapter sources'.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kaito_runtime.errors import AdapterLoadError
from kaito_runtime.lora.peft_config import CONFIG_FILE, FORBIDDEN, Refuse, parse_config, rank_and_scaling, targeted
from kaito_runtime.lora.targets import linear_shape

__all__ = ["AdapterWeights", "LoraMatrix", "read_adapter"]

WEIGHTS_FILE = "adapter_model.safetensors"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "pytorch_model.bin")
PREFIX = "base_model.model."
LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")
# Beyond fp16's range a value is no trained weight, and sums over it could turn into infinities in a shared batch.
LARGEST = 65504.0
DTYPES = frozenset({torch.float64, torch.float32, torch.float16, torch.bfloat16})


@dataclass(frozen=True, slots=True)
class LoraMatrix:
    """What one adapter adds to one linear layer: `scaling * b @ a`.

    Attributes:
        a: `[r, K]`, any rank r >= 1.
        b: `[N, r]`.
        scaling: alpha / r, or alpha / sqrt(r) for rsLoRA; strength is not in it.
    """

    a: Tensor
    b: Tensor
    scaling: float


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """One adapter, checked against one model.

    Attributes:
        name: What requests call it.
        digest: "sha256:..." of `cat adapter_config.json adapter_model.safetensors`.
        matrices: By the path of the linear layer inside the base model, such as "model.layers.0.self_attn.q_proj".
    """

    name: str
    digest: str
    matrices: Mapping[str, LoraMatrix]


def read_adapter(path: Path, model: nn.Module, *, name: str, digest: str | None = None) -> AdapterWeights:
    """Reads the PEFT folder `path` and checks it against `model`.

    Args:
        path: Folder with `adapter_config.json` and `adapter_model.safetensors`.
        model: The base model, before or after `inject_lora`.
        name: The adapter's name, for messages and requests.
        digest: "sha256:..." that the content must have, or None.

    Raises:
        AdapterLoadError: The folder is incomplete or damaged, its content is another than `digest` says, or it holds
            something that would not be applied exactly.
    """

    def refuse(reason: str) -> AdapterLoadError:
        return AdapterLoadError(name, reason)

    config_bytes, weight_bytes = _read_files(Path(path), refuse)
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


def _read_files(path: Path, refuse: Refuse) -> tuple[bytes, bytes]:
    if not path.is_dir():
        raise refuse(f"'{path}' is not a folder")
    if not (path / CONFIG_FILE).is_file():
        raise refuse(f"'{path}' has no {CONFIG_FILE}; is it a PEFT adapter?")
    if not (path / WEIGHTS_FILE).is_file():
        pickles = [p for p in PICKLES if (path / p).exists()]
        if pickles:
            raise refuse(
                f"{pickles[0]} is a pickle, which can run code when loaded; convert it to {WEIGHTS_FILE} "
                "(PEFT: save_pretrained(..., safe_serialization=True))"
            )
        raise refuse(f"'{path}' has no {WEIGHTS_FILE}")
    try:
        return (path / CONFIG_FILE).read_bytes(), (path / WEIGHTS_FILE).read_bytes()
    except OSError as error:
        raise refuse(f"'{path}' cannot be read: {error}") from error


def _parse_tensors(content: bytes, refuse: Refuse) -> dict[str, Tensor]:
    import safetensors.torch
    from safetensors import SafetensorError

    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise refuse(f"{WEIGHTS_FILE} is damaged: {error}") from error
    if not tensors:
        raise refuse(f"{WEIGHTS_FILE} holds no tensors")
    return tensors


def _pair_tensors(tensors: Mapping[str, Tensor], model: nn.Module, refuse: Refuse) -> dict[str, tuple[Tensor, Tensor]]:
    """Groups the tensors by module, each with its A and B; every tensor must have a place."""
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in sorted(tensors.items()):
        bare = key.removeprefix(PREFIX)
        if "lora_embedding_" in key:
            raise refuse(f"tensor '{key}' adapts an embedding; only linear layers can be adapted")
        if "lora_magnitude_vector" in key:
            raise refuse(f"tensor '{key}' belongs to DoRA: {FORBIDDEN['use_dora']}")
        match = LORA_KEY.fullmatch(bare)
        if match is None and ".base_layer." in bare:
            raise refuse(
                f"tensor '{key}' is a copy of a base weight, which PEFT saves where an embedding or the output head is "
                "adapted; only the linear layers inside the model can be adapted"
            )
        if match is None:
            if isinstance(_submodule(model, bare.removesuffix(".weight")), nn.Embedding):
                raise refuse(
                    f"tensor '{key}' {list(tensor.shape)} replaces an embedding or extends the vocabulary; "
                    "train the adapter without resizing the embeddings"
                )
            raise refuse(f"tensor '{key}' is not lora_A or lora_B of a module")
        module_path, half = match["module"], match["half"]
        if half in halves.setdefault(module_path, {}):
            raise refuse(f"'{module_path}' has more than one lora_{half}; save one adapter per folder")
        if tensor.dtype not in DTYPES:
            raise refuse(f"tensor '{key}' has dtype {tensor.dtype}, expected a floating-point type of 16 bits or more")
        peak = tensor.abs().max().item() if tensor.numel() else 0.0
        if not math.isfinite(peak):
            raise refuse(f"tensor '{key}' holds NaN or infinite values")
        if peak > LARGEST:
            raise refuse(f"tensor '{key}' holds a value of magnitude {peak:g}; the largest accepted is {LARGEST:g}")
        halves[module_path][half] = tensor
    for module_path, pair in halves.items():
        for half in "AB":
            if half not in pair:
                raise refuse(f"'{module_path}' has no lora_{half}")
    return {module_path: (pair["A"], pair["B"]) for module_path, pair in halves.items()}


def _expected_targets(
    config: Mapping[str, Any], model: nn.Module, pairs: Mapping[str, object], refuse: Refuse
) -> Iterable[str]:
    """The modules that the configuration names, which must be the modules that the tensors name."""
    linears = {path: shape for path, module in model.named_modules() if (shape := linear_shape(module)) is not None}
    for module_path in pairs:
        if module_path not in linears:
            module = _submodule(model, module_path)
            what = "no module of the base model" if module is None else f"a {type(module).__name__}, not a linear layer"
            raise refuse(
                f"the adapter's tensors name '{module_path}', which is {what}; was it trained on another model?"
            )
    if config.get("target_modules") is None:
        return list(pairs)  # PEFT saves null only where its own table per architecture chose: the tensors say which
    named = targeted(config, model, linears, refuse)
    if not named:
        raise refuse(f"target_modules {config['target_modules']!r} name no module of the base model")
    if extra := sorted(set(pairs) - named):
        raise refuse(f"the adapter has tensors for '{extra[0]}', which target_modules do not name")
    if missing := sorted(named - set(pairs)):
        raise refuse(f"target_modules name '{missing[0]}', but {WEIGHTS_FILE} has no lora_A and lora_B for it")
    return named


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


def _submodule(model: nn.Module, path: str) -> nn.Module | None:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None
