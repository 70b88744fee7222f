"""What can be said of an adapter's folder without the model: whether it would be refused, and what it needs.

The runtime checks the same files again, against the layers of the model that it serves.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kaito_core.api.fetching import digest_of
from kaito_core.api.peft.config import (
    CONFIG_FILE,
    FROM_MLX,
    LARGEST,
    MLX_FILE,
    Refuse,
    names_targeted,
    parse_config,
    rank_and_scaling,
)
from kaito_core.api.peft.header import HeaderError, TensorEntry, largest_value, read_header
from kaito_core.api.peft.keys import REFUSED

__all__ = ["WEIGHTS_FILE", "AdapterReport", "examine"]

WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_PAIR = re.compile(
    r"(?P<module>.+)\.lora_(?:(?P<half>[AB])(?:\.(?P<adapter>[^.]+))?\.weight"
    r"|embedding_(?P<half_of_embedding>[AB])(?:\.(?P<adapter_of_embedding>[^.]+))?)"
)
_TOKENS = re.compile(r"(?P<module>.+)\.token_adapter\.trainable_tokens_delta(?:\.[^.]+)?")
_WRAPPED = re.compile(r"(?:base_model|module|_orig_mod)\.|.*\._orig_mod\.")
_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "pytorch_model.bin")
_LARGEST_CONFIG = 1 << 20
_PAGE = 16  # ranks: adapters share memory in pages of as many
_GPU_BYTES, _CPU_BYTES = 2, 4  # of an element

Shape = tuple[int, ...]


class _Refusal(Exception):
    pass


@dataclass(slots=True)
class AdapterReport:
    """What was found.

    Attributes:
        works: Whether nothing was found that the runtime refuses.
        reason: Why it is refused, "" where it is not.
        digest: "sha256:..." of the two files, as `inference.adapters[].digest` has it; "" where one is missing.
        base_model: What the adapter says it was trained on.
        rank: The largest rank.
        modules: How many layers it adapts.
        targets: Names of the adapted layers, without the numbers of layers and experts.
        gpu_bytes: Memory on a GPU, in 16 bits.
        cpu_bytes: Memory on a CPU, in 32 bits.
        notes: What only the model can tell, in words.
    """

    works: bool = False
    reason: str = ""
    digest: str = ""
    base_model: str = ""
    rank: int = 0
    modules: int = 0
    targets: list[str] = field(default_factory=list)
    gpu_bytes: int = 0
    cpu_bytes: int = 0
    notes: list[str] = field(default_factory=list)


def examine(folder: Path) -> AdapterReport:
    """Returns what can be said of an adapter's folder. Nothing is imported that computes, and no file is unpickled."""
    report = AdapterReport()
    try:
        _examine(folder, report)
    except (_Refusal, OSError) as error:
        report.reason = str(error)
    report.works = not report.reason
    return report


def _examine(folder: Path, report: AdapterReport) -> None:
    config_path, weights_path = _files(folder)
    for path in (config_path, weights_path):
        _check_link(path)
    content = config_path.read_bytes()
    report.digest = digest_of(folder)
    config = parse_config(content, _Refusal)
    report.base_model = str(config.get("base_model_name_or_path") or "")
    try:
        tensors = read_header(weights_path)
        if not tensors:
            raise _Refusal(f"{WEIGHTS_FILE} holds no tensors; save the adapter again")
        with weights_path.open("rb") as file:
            for key, entry in tensors.items():
                _check_values(key, entry, largest_value(file, entry) if entry.is_float else 0.0)
    except HeaderError as error:
        raise _Refusal(f"{WEIGHTS_FILE} is damaged: {error}; fetch or save it again") from error
    pairs, tokens = _sorted(tensors, report)
    _check_tokens(config, tokens)
    _check_whole_modules(config, tensors)
    _check_targets(config, pairs, _Refusal)
    ranks = {module: _rank(config, module, shapes, report) for module, shapes in pairs.items()}
    ranks |= dict(tokens)
    report.rank, report.modules = max(ranks.values(), default=0), len(ranks)
    report.targets = sorted({re.sub(r"\.\d+(?=\.|$)", "", module).rpartition(".")[2] for module in ranks})
    pages = -(-report.rank // _PAGE) * _PAGE
    # Where A has several times the rank, it is that of as many experts.
    widths = sum((a[1] + b[0]) * (a[0] // ranks[module]) for module, (a, b) in pairs.items())
    report.gpu_bytes, report.cpu_bytes = pages * widths * _GPU_BYTES, pages * widths * _CPU_BYTES


def _files(folder: Path) -> tuple[Path, Path]:
    if not folder.is_dir():
        raise _Refusal(f"'{folder}' is not a folder")
    config, weights = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    if not config.is_file():
        raise _Refusal(f"'{folder}' has no {CONFIG_FILE}; is it a PEFT adapter?")
    if config.stat().st_size > _LARGEST_CONFIG:
        raise _Refusal(f"{CONFIG_FILE} has more than {_LARGEST_CONFIG} bytes")
    if not weights.is_file():
        if (folder / MLX_FILE).exists():
            raise _Refusal(f"{MLX_FILE} is what MLX saves; {FROM_MLX}")
        for name in _PICKLES:
            if (folder / name).exists():
                raise _Refusal(
                    f"{name} is a pickle, which can run code when loaded; convert it to {WEIGHTS_FILE} "
                    "(PEFT: save_pretrained(..., safe_serialization=True))"
                )
        if shards := sorted(shard.name for shard in folder.glob("adapter_model-*-of-*.safetensors")):
            raise _Refusal(f"the weights are split over {len(shards)} files; save them as {WEIGHTS_FILE}")
        raise _Refusal(f"'{folder}' has no {WEIGHTS_FILE}")
    return config, weights


def _check_link(path: Path) -> None:
    root, file = path.parent.resolve(), path.resolve()
    # The hub's cache links from .../snapshots/REVISION to .../blobs.
    blobs = root.parents[1] / "blobs" if root.parent.name == "snapshots" else root
    if not (file.is_relative_to(root) or file.is_relative_to(blobs)):
        raise _Refusal(f"{path.name} is a link to a file outside of its folder; copy the file instead")


def _check_values(key: str, entry: TensorEntry, peak: float) -> None:
    adapts = ".base_layer." not in key and (_PAIR.fullmatch(key) or _TOKENS.fullmatch(key))
    if adapts and not entry.is_float:
        raise _Refusal(f"tensor '{key}' has dtype {entry.dtype}, expected a floating-point type of 16 bits or more")
    if peak == float("inf"):
        raise _Refusal(
            f"tensor '{key}' holds NaN or infinite values; take a checkpoint from before the training diverged"
        )
    if peak > LARGEST:
        raise _Refusal(f"tensor '{key}' holds a value of magnitude {peak:g}; the largest accepted is {LARGEST:g}")


def _sorted(
    tensors: Mapping[str, TensorEntry], report: AdapterReport
) -> tuple[dict[str, tuple[Shape, Shape]], list[tuple[str, int]]]:
    """Returns the shapes of A and B by module, and the number of trained tokens by module."""
    halves: dict[str, dict[str, Shape]] = {}
    adapters: dict[str | None, str] = {}  # from the name in a key to the first key with that name
    tokens: list[tuple[str, int]] = []
    for key, entry in sorted(tensors.items()):
        bare = key.removeprefix(_PREFIX)
        if match := _PAIR.fullmatch(bare):
            half = match["half"] or match["half_of_embedding"]
            if _WRAPPED.match(bare):
                raise _Refusal(
                    f"there are tensors for '{match['module']}', which is in no base model; save it unwrapped"
                )
            if half in halves.setdefault(match["module"], {}):
                raise _Refusal(f"tensor '{key}': '{match['module']}' has more than one lora_{half}")
            if len(entry.shape) != 2:
                raise _Refusal(f"tensor '{key}' has shape {list(entry.shape)}, expected a matrix")
            halves[match["module"]][half] = entry.shape
            first = adapters.setdefault(match["adapter"] or match["adapter_of_embedding"], key)
            if len(adapters) > 1:
                other = next(found for found in adapters.values() if found != first)
                raise _Refusal(f"tensors '{other}' and '{key}' belong to two adapters; save one adapter per folder")
        elif match := _TOKENS.fullmatch(bare):
            tokens.append((match["module"], entry.shape[0] if entry.shape else 0))
        elif (reason := _fault(bare)) or not bare.endswith((".weight", ".bias")):
            raise _Refusal(f"tensor '{key}' {reason or 'is not lora_A or lora_B of a module'}")
        else:
            report.notes.append(f"tensor '{key}' must equal the base model's")
    for module, found in halves.items():
        for half in "AB":
            if half not in found:
                raise _Refusal(f"'{module}' has no lora_{half}, only the other half; save the adapter again")
    return {module: (found["A"], found["B"]) for module, found in halves.items()}, tokens


def _fault(bare: str) -> str:
    if "lora_magnitude_vector" in bare:
        return f"belongs to DoRA: {REFUSED['use_dora']}"
    if re.search(r"\.lora_[AB](\.[^.]+)?\.bias$", bare):
        return f"is a trained bias: {REFUSED['lora_bias']}"
    return "is not lora_A or lora_B of a module" if ".lora_" in bare else ""


def _check_tokens(config: Mapping[str, Any], tokens: list[tuple[str, int]]) -> None:
    given = config.get("trainable_token_indices")
    if tokens and not given:
        raise _Refusal(f"'{tokens[0][0]}' has trained tokens, but trainable_token_indices does not say which")
    lists = list(given.values()) if isinstance(given, dict) else [given] if given else []
    if not all(isinstance(ids, list) and all(type(i) is int and i >= 0 for i in ids) for ids in lists):
        raise _Refusal("trainable_token_indices must list tokens")
    if lists and not tokens:
        raise _Refusal(f"trainable_token_indices names tokens, but {WEIGHTS_FILE} has no rows for them")
    counts = {len(ids) for ids in lists}
    for module, rows in tokens:
        if rows not in counts:
            raise _Refusal(f"the trained tokens of '{module}' are {rows}, but trainable_token_indices names others")


def _check_whole_modules(config: Mapping[str, Any], tensors: Mapping[str, object]) -> None:
    for name in config.get("modules_to_save") or ():
        if not any(f".{name}." in f".{key}" for key in tensors if ".lora_" not in key):
            raise _Refusal(f"modules_to_save names '{name}', but {WEIGHTS_FILE} has no tensors for it; make both agree")


def _check_targets(config: Mapping[str, Any], pairs: Mapping[str, object], refuse: Refuse) -> None:
    if config.get("target_parameters") or config.get("target_modules") is None:
        return  # names of parameters, or a choice of PEFT's: only the model tells
    named = names_targeted(config, pairs, pairs, refuse)
    tied = {"lm_head"} if config.get("ensure_weight_tying") else set()
    if extra := sorted(set(pairs) - named - tied):
        raise refuse(f"there are tensors for '{extra[0]}', which target_modules does not include; make both agree")
    if not named:
        target = config["target_modules"]
        raise refuse(f"target_modules {target!r} matches no module that there are tensors for")


def _rank(config: Mapping[str, Any], module: str, shapes: tuple[Shape, Shape], report: AdapterReport) -> int:
    """Returns a module's rank; of stacked experts, what only the model can tell is noted."""
    a, b = shapes
    if a[0] != b[1]:
        raise _Refusal(
            f"lora_A and lora_B of '{module}' have shapes {list(a)} and {list(b)}, which do not fit together"
        )
    names = list(_names(config, module))
    found = {rank_and_scaling(config, name, _Refusal)[0] for name in names}
    if a[0] in found:
        return a[0]
    if config.get("target_parameters") and any(a[0] % rank == 0 for rank in found):
        report.notes.append(f"'{module}' has matrices of several experts")
        return next(rank for rank in sorted(found, reverse=True) if a[0] % rank == 0)
    raise _Refusal(f"lora_A of '{module}' has shape {list(a)}, but the configuration says rank {min(found)}")


def _names(config: Mapping[str, Any], module: str) -> Iterator[str]:
    """Yields the names under which patterns may mean a module: its own, and those of its parameters."""
    bare = re.sub(r"(\.base_layer)+$", "", module)
    yield bare
    for target in config.get("target_parameters") or ():
        yield f"{bare}.{str(target).rpartition('.')[2]}"
