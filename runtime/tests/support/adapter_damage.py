"""What can be done to an adapter's folder, and the record of one kind of folder. The table is in `adapter_defects`."""

import json
import pickle
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = [
    "CONFIG",
    "GOOD",
    "OLD",
    "OLDEST",
    "PREFIX",
    "WEIGHTS",
    "WRAPPED",
    "A",
    "B",
    "Case",
    "adds",
    "becomes_file",
    "both",
    "casts",
    "empties",
    "grows",
    "holds",
    "is_folder",
    "lacks",
    "lies",
    "links",
    "pickles",
    "pokes",
    "removes",
    "renames",
    "says",
    "shards",
    "trains_tokens",
    "truncates",
    "writes",
]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
GOOD: Mapping[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
Damage = Callable[[Path], object]
Tensors = dict[str, Tensor]

# What early versions of PEFT wrote, keys that are gone since among it.
OLDEST: Mapping[str, Any] = {
    "base_model_name_or_path": "x", "bias": "none", "enable_lora": None, "fan_in_fan_out": False,
    "inference_mode": True, "lora_alpha": 8, "lora_dropout": 0.05, "merge_weights": False, "modules_to_save": None,
    "peft_type": "LORA", "r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM",
}  # fmt: skip
OLD: Mapping[str, Any] = {
    "alpha_pattern": {}, "auto_mapping": None, "init_lora_weights": True, "layers_pattern": None,
    "layers_to_transform": None, "loftq_config": {}, "megatron_config": None, "megatron_core": "megatron.core",
    "rank_pattern": {}, "revision": None,
}  # fmt: skip

PREFIX = "base_model.model.model.layers.0.self_attn.q_proj"
WRAPPED = ".model.language_model.layers"
A, B = f"{PREFIX}.lora_A.weight", f"{PREFIX}.lora_B.weight"


@dataclass(frozen=True)
class Case:
    """One kind of folder.

    Attributes:
        name: What is special about it.
        words: Part of the refusal; None if it is applied as PEFT applies it.
        damage: What is done to the folder after PEFT has saved it.
        train: Keys of PEFT's LoraConfig, added to `GOOD`.
        model: Keys in which the Llama that it is trained on differs from the one that is served.
        before: PEFT reads the folder as it was before the damage, since it cannot read it afterwards.
        waits: A running server assumes that the folder is still being written: its name answers 503.
    """

    name: str
    words: str | None
    damage: Damage = lambda folder: None
    train: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    before: bool = False
    waits: bool = False


def says(**changes: Any) -> Damage:
    """Changes keys of the configuration."""

    def damage(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text()) | changes
        (folder / CONFIG).write_text(json.dumps(config))

    return damage


def lacks(key: str) -> Damage:
    """Takes a key out of the configuration."""

    def damage(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        del config[key]
        (folder / CONFIG).write_text(json.dumps(config))

    return damage


def holds(change: Callable[[Tensors], object]) -> Damage:
    """Changes the tensors."""

    def damage(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / WEIGHTS)

    return damage


def adds(key: str, *shape: int) -> Damage:
    return holds(lambda tensors: tensors.update({key: torch.ones(shape)}))


def renames(rename: Callable[[str], str]) -> Damage:
    def change(tensors: Tensors) -> None:
        renamed = {rename(key): tensor for key, tensor in tensors.items()}
        tensors.clear()
        tensors.update(renamed)

    return holds(change)


def pokes(key: str, value: float) -> Damage:
    return holds(lambda tensors: tensors[key].view(-1)[:1].fill_(value))


def trains_tokens(folder: Path) -> None:
    """Gives trained tokens rows of their own; PEFT starts with the base model's."""

    def change(tensors: Tensors) -> None:
        for key, tensor in tensors.items():
            if "trainable_tokens" in key:
                tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(3)))

    holds(change)(folder)


def casts(dtype: torch.dtype) -> Damage:
    return holds(lambda tensors: tensors.update({key: tensor.to(dtype) for key, tensor in tensors.items()}))


def writes(name: str, content: str | bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def removes(*names: str) -> Damage:
    return lambda folder: [(folder / name).unlink() for name in names]


def both(*damages: Damage) -> Damage:
    return lambda folder: [damage(folder) for damage in damages]


def truncates(keep: float) -> Damage:
    def damage(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (folder / WEIGHTS).write_bytes(content[: int(len(content) * keep)])

    return damage


def lies(change: Callable[[dict[str, Any]], object]) -> Damage:
    """Changes the header of the safetensors file and leaves the data as they are."""

    def damage(folder: Path) -> None:
        content = (folder / WEIGHTS).read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])

    return damage


def links(name: str, to: str) -> Damage:
    """Moves a file to a place relative to the folder, and leaves a link."""

    def damage(folder: Path) -> None:
        target = (folder / to).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder / name, target)
        (folder / name).symlink_to(target)

    return damage


def is_folder(name: str) -> Damage:
    return lambda folder: ((folder / name).unlink(), (folder / name).mkdir())


def empties(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def becomes_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"")


def shards(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model-00001-of-00002.safetensors")
    (folder / "adapter_model.safetensors.index.json").write_text("{}")


def pickles(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps({}))


def grows(folder: Path) -> None:
    with (folder / WEIGHTS).open("r+b") as stream:
        stream.truncate(1 << 30)  # a sparse file
