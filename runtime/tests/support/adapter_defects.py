"""Every kind of adapter folder that is known to go wrong somewhere, and how each is handled here. Data only.

Each case is trained by PEFT on the tiny Llama of the test kit, then damaged. It is refused with the given words before
anything is loaded, or, where there are none, its logits are those that PEFT gives. docs/reference/adapter-checks.md is
written from this table.
"""

import json
import math
import pickle
import re
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["CASES", "GOOD", "Case"]

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


# fmt: off
FILES = (
    Case("no folder", "is not a folder", shutil.rmtree, waits=True),
    Case("a file in the folder's place", "is not a folder", becomes_file, waits=True),
    Case("an empty folder", f"has no {CONFIG}", empties, waits=True),
    Case("no configuration", f"has no {CONFIG}", removes(CONFIG), waits=True),
    Case("the configuration's name in capitals", f"has no {CONFIG}",
         lambda folder: (folder / CONFIG).rename(folder / CONFIG.upper()), waits=True),
    Case("no weights", f"has no {WEIGHTS}", removes(WEIGHTS)),
    Case("weights as a pickle only", "adapter_model.bin is a pickle, which can run code when loaded; convert it",
         pickles),
    Case("a pickle beside safetensors, never opened", None, writes("adapter_model.bin", b"\x80\x04")),
    Case("weights in shards", "the weights are split over 1 files (adapter_model-00001-of-00002.safetensors", shards),
    Case("the configuration is a folder", f"has no {CONFIG}", is_folder(CONFIG)),
    Case("the weights are a folder", f"has no {WEIGHTS}", is_folder(WEIGHTS)),
    Case("the configuration is a link out of the folder", f"{CONFIG} is a link to a file outside of its folder; copy",
         links(CONFIG, "../elsewhere/config")),
    Case("the weights are a link out of the folder", f"{WEIGHTS} is a link to a file outside of its folder",
         links(WEIGHTS, "../elsewhere/weights")),
    Case("a link that leads nowhere", f"has no {CONFIG}",
         both(removes(CONFIG), lambda folder: (folder / CONFIG).symlink_to("nowhere")), waits=True),
    Case("a link within the folder", None, links(WEIGHTS, "..data/weights")),
    Case("a configuration of megabytes", f"{CONFIG} has more than 1048576 bytes", writes(CONFIG, b" " * (2 << 20))),
    Case("weights larger than any adapter of the model", f"{WEIGHTS} has more than", grows),
    Case("no bytes of weights", f"{WEIGHTS} is damaged", writes(WEIGHTS, b"")),
    Case("weights that were cut off", f"{WEIGHTS} is damaged", truncates(0.5)),
    Case("weights that were cut off in their header", f"{WEIGHTS} is damaged", truncates(0.01)),
    Case("text in the weights' place", f"{WEIGHTS} is damaged",
         writes(WEIGHTS, "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")),
    Case("a header longer than the file", f"{WEIGHTS} is damaged", writes(WEIGHTS, struct.pack("<Q", 1 << 40))),
    Case("a header that is not JSON", f"{WEIGHTS} is damaged", writes(WEIGHTS, struct.pack("<Q", 2) + b"{,")),
    Case("a header with a larger shape than its data", f"{WEIGHTS} is damaged",
         lies(lambda header: header[A].update(shape=[4, 64]))),
    Case("a header with data beyond the end", f"{WEIGHTS} is damaged",
         lies(lambda header: header[A].update(data_offsets=[0, 1 << 40]))),
    Case("a header with two tensors on the same data", f"{WEIGHTS} is damaged",
         lies(lambda header: header[A].update(data_offsets=header[B]["data_offsets"]))),
    Case("a header with an unknown dtype", f"{WEIGHTS} is damaged",
         lies(lambda header: header[A].update(dtype="F128"))),
    Case("data that no tensor claims", f"{WEIGHTS} is damaged",
         lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes() + b"0" * 64)),
    Case("no tensors", f"{WEIGHTS} holds no tensors", holds(dict.clear)),
)
CONFIGURATION = (
    Case("not JSON", f"{CONFIG} is not JSON", writes(CONFIG, "{r: 8")),
    Case("not text", f"{CONFIG} is not JSON", writes(CONFIG, b"\xff\xfe\x00")),
    Case("a list", f"{CONFIG} must be a JSON object, got list", writes(CONFIG, "[]")),
    Case("lists within lists, a hundred thousand deep", f"{CONFIG} is not JSON", writes(CONFIG, "[" * 100_000)),
    Case("a duplicate key", "duplicate key 'lora_alpha'",
         writes(CONFIG, '{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "lora_alpha": 80}')),
    Case("another method than LoRA", "peft_type must be 'LORA', got 'IA3'", says(peft_type="IA3")),
    Case("an unknown method", "peft_type must be 'LORA', got 'LORA2'", says(peft_type="LORA2")),
    Case("the method in lower case", "peft_type must be 'LORA', got 'lora'", says(peft_type="lora")),
    Case("no method", "peft_type must be 'LORA', got None", lacks("peft_type")),
    Case("a classification head", "task_type is 'SEQ_CLS', which puts another head on the model",
         says(task_type="SEQ_CLS")),
    Case("a token classification head", "task_type is 'TOKEN_CLS', which puts", says(task_type="TOKEN_CLS")),
    Case("a question answering head", "task_type is 'QUESTION_ANS', which puts", says(task_type="QUESTION_ANS")),
    Case("a task in lower case", "task_type must be one of CAUSAL_LM", says(task_type="causal_lm")),
    Case("no task", None, says(task_type=None)),
    Case("a task without a head of its own", None, says(task_type="FEATURE_EXTRACTION"), before=True),
    Case("rank 0", "must be an integer of 1 or more, got 0", says(r=0)),
    Case("a negative rank", "must be an integer of 1 or more, got -4", says(r=-4)),
    Case("a rank with a fraction", "must be an integer of 1 or more, got 4.0", says(r=4.0)),
    Case("a rank as text", "r of 'model.layers.0.self_attn.q_proj' must be a finite number, got '4'", says(r="4")),
    Case("a rank that the tensors do not have",
         "lora_A of 'model.layers.0.self_attn.q_proj' has shape [4, 32], but rank 8", says(r=8)),
    Case("no rank, which PEFT takes for 8", None, lacks("r"), {"r": 8}),
    Case("a rank larger than the layer", None, train={"r": 40}),
    Case("a rank beyond the memory for adapters", "rank 17000 needs 1063 pages of 16 ranks", train={"r": 17000}),
    Case("alpha as text", "lora_alpha of 'model.layers.0.self_attn.q_proj' must be a finite number, got '16'",
         says(lora_alpha="16")),
    Case("alpha null", "must be a finite number, got None", says(lora_alpha=None)),
    Case("alpha a flag", "must be a finite number, got True", says(lora_alpha=True)),
    Case("alpha infinite", "must be a finite number, got inf", says(lora_alpha=math.inf)),
    Case("alpha not a number", "must be a finite number, got nan", says(lora_alpha=math.nan)),
    Case("alpha an integer that no float can hold", "must be a finite number, got 1000", says(lora_alpha=10**400)),
    Case("an absurd alpha", "gives a scaling of 2.5e+29; the largest accepted is 65504", says(lora_alpha=1e30)),
    Case("a negative alpha", None, train={"lora_alpha": -8}),
    Case("alpha with a fraction", None, train={"lora_alpha": 2.5}),
    Case("alpha 0", None, train={"lora_alpha": 0}),
    Case("rsLoRA", None, train={"use_rslora": True, "r": 9}),
    Case("rsLoRA as text", "use_rslora must be true or false, got 'false'", says(use_rslora="false")),
    Case("patterns of rank and alpha", None,
         train={"rank_pattern": {"q_proj": 20}, "alpha_pattern": {r"layers\.1\.self_attn\.v_proj": 3}}),
    Case("patterns with rsLoRA", None,
         train={"rank_pattern": {"v_proj": 5}, "alpha_pattern": {"^model.layers.0.self_attn.q_proj": 1},
                "use_rslora": True}),
    Case("a rank pattern that the tensors do not have", "lora_A of 'model.layers.0.self_attn.v_proj' has shape",
         says(rank_pattern={"v_proj": 5})),
    Case("patterns that match nothing, which PEFT ignores", None,
         train={"rank_pattern": {"no_such_proj": 9}, "alpha_pattern": {"no_such_proj": 99}}),
    Case("a rank pattern that is a list", "rank_pattern must map module patterns to numbers, got [3]",
         says(rank_pattern=[3])),
    Case("a rank pattern of text", "r of 'model.layers.0.self_attn.q_proj' must be a finite number, got '4'",
         says(rank_pattern={"q_proj": "4"})),
    Case("a broken rank pattern", "rank_pattern ['('] is not a regular expression", says(rank_pattern={"(": 3})),
    Case("a broken alpha pattern", "alpha_pattern ['*'] is not a regular expression", says(alpha_pattern={"*": 3})),
    Case("dropout", None, train={"lora_dropout": 0.5}),
    Case("fan_in_fan_out beside linear layers, which PEFT corrects", None, says(fan_in_fan_out=True)),
    Case("ensure_weight_tying", None, train={"ensure_weight_tying": True}),
    Case("a note about another base model", None, says(base_model_name_or_path="somebody/else", revision="v0")),
    Case("an unknown key that is off", None, says(use_quantum_lora=False, quantum_config=None), before=True),
    Case("an unknown key that is on", "use_quantum_lora is set to True: the key is unknown here",
         says(use_quantum_lora=True)),
    Case("an unknown key with a number", "quantum_scale is set to 0.5: the key is unknown here",
         says(quantum_scale=0.5)),
    Case("a configuration as PEFT 0.2 wrote it", None, writes(CONFIG, json.dumps(OLDEST))),
    Case("a configuration as PEFT 0.7 wrote it", None, writes(CONFIG, json.dumps(OLDEST | OLD))),
    Case("a list of modules as text", "modules_to_save must be a list of names, got 'lm_head'",
         says(modules_to_save="lm_head")),
    Case("parameters as text", "target_parameters must be a list of names, got 'experts'",
         says(target_parameters="experts")),
    Case("an empty object", "peft_type must be 'LORA', got None", writes(CONFIG, "{}")),
)
TARGETS = (
    Case("all linear layers", None, train={"target_modules": "all-linear"}),
    Case("a pattern", None, train={"target_modules": r".*layers\.1\..*(up|down)_proj"}),
    Case("full paths", None, train={"target_modules": ["model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"]}),
    Case("excluded modules", None, train={"target_modules": "all-linear", "exclude_modules": ["up_proj", "o_proj"]}),
    Case("some layers", None, train={"layers_to_transform": [1]}),
    Case("one layer, with its pattern", None, train={"layers_to_transform": 0, "layers_pattern": "layers"}),
    Case("a layer beyond the model, without tensors, which PEFT ignores", None,
         train={"layers_to_transform": [0, 7]}),
    Case("a layer beyond the model, with tensors",
         "there are tensors for 'model.layers.2.self_attn.q_proj', which is not in the base model; was it trained on",
         model={"num_hidden_layers": 4}),
    Case("names that no module has", "target_modules ['Wqkv'] matches no module of the base model",
         says(target_modules=["Wqkv"])),
    Case("names in capitals", "target_modules ['Q_PROJ', 'V_PROJ'] matches no module",
         says(target_modules=["Q_PROJ", "V_PROJ"])),
    Case("no names", "target_modules [] matches no module", says(target_modules=[])),
    Case("a number", "target_modules must be a pattern or a list of names, got 3", says(target_modules=3)),
    Case("numbers", "target_modules must be a pattern or a list of names, got [3]", says(target_modules=[3])),
    Case("a pattern that matches nothing", "target_modules 'q_proj' matches no module", says(target_modules="q_proj")),
    Case("a broken pattern", "target_modules '(' cannot be read as a regular expression", says(target_modules="(")),
    Case("a broken pattern of what is excluded", "exclude_modules '[' cannot be read as a regular expression",
         says(exclude_modules="[")),
    Case("excluded modules as a number", "exclude_modules must be a pattern or a list of names, got 7",
         says(exclude_modules=7)),
    Case("excluded modules that have tensors",
         "tensors for 'model.layers.0.self_attn.v_proj', which target_modules does not include",
         says(exclude_modules=["v_proj"])),
    Case("a pattern as tools write it, for any kind of model", None,
         train={"target_modules": r"(?:.*?(?:language|text).*?(?:self_attn|attn|mlp).*?(?:k_proj|v_proj|q_proj).*?)"
                                  r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:k_proj|v_proj|up_proj)))"}),
    Case("a pattern that would match for years", "could take forever to match; avoid nested repetitions",
         says(target_modules=r"([\w.]|[\w.])*!")),
    Case("a rank pattern that would match for years", r"rank_pattern '(\\w+.?)+!' could take forever to match",
         says(rank_pattern={r"(\w+.?)+!": 4})),
    Case("layers as text", "layers_to_transform must be a number or a list of numbers, got ['0']",
         says(layers_to_transform=["0"])),
    Case("layers beside a pattern", "layers_to_transform cannot be combined with a pattern",
         says(target_modules=r".*\.(q|v)_proj", layers_to_transform=[0])),
    Case("a pattern of layers without layers", "layers_pattern is set to 'layers', but layers_to_transform is not set",
         says(layers_pattern="layers")),
    Case("fewer modules than there are tensors", "tensors for 'model.layers.0.self_attn.v_proj', which target_modules",
         says(target_modules=["q_proj"])),
    Case("more modules than there are tensors",
         "target_modules includes 'model.layers.0.self_attn.k_proj', but adapter_model.safetensors has no tensors",
         says(target_modules=["q_proj", "v_proj", "k_proj"])),
    Case("an embedding without tensors",
         "target_modules includes 'model.embed_tokens', but adapter_model.safetensors has no tensors",
         says(target_modules=["q_proj", "v_proj", "embed_tokens"])),
    Case("a block in place of its layers", "target_modules includes 'model.layers.0.self_attn', a module of type",
         says(target_modules=["q_proj", "v_proj", "self_attn"])),
    Case("modules left to PEFT's table", None, says(target_modules=None), before=True),
)
TENSORS = (
    Case("no lora_B", "'model.layers.0.self_attn.q_proj' has no lora_B", holds(lambda tensors: tensors.pop(B))),
    Case("no lora_A", "'model.layers.0.self_attn.q_proj' has no lora_A", holds(lambda tensors: tensors.pop(A))),
    Case("a module without its pair", "target_modules includes 'model.layers.0.self_attn.q_proj', but",
         holds(lambda tensors: (tensors.pop(A), tensors.pop(B)))),
    Case("A transposed", "lora_A of 'model.layers.0.self_attn.q_proj' has shape [32, 4], but rank 4",
         holds(lambda tensors: tensors.update({A: tensors[A].t()}))),
    Case("B transposed", "lora_B of 'model.layers.0.self_attn.q_proj' has shape [4, 32], but rank 4",
         holds(lambda tensors: tensors.update({B: tensors[B].t()}))),
    Case("A a vector", "has shape [32], but rank 4", holds(lambda tensors: tensors.update({A: tensors[A][0]}))),
    Case("A without values", "has shape [0, 32], but rank 4",
         holds(lambda tensors: tensors.update({A: tensors[A][:0]}))),
    Case("a model of another width", "has shape [4, 64], but rank 4 on the base model's [32, 32] layer needs [4, 32]",
         model={"hidden_size": 64}),
    Case("a model with more key heads", "lora_B of 'model.layers.0.self_attn.v_proj' has shape [32, 4]",
         model={"num_key_value_heads": 4}),
    Case("a value that is not a number", f"tensor '{A}' holds NaN or infinite values", pokes(A, math.nan)),
    Case("an infinite value", f"tensor '{B}' holds NaN or infinite values", pokes(B, -math.inf)),
    Case("an absurd value", f"tensor '{A}' holds a value of magnitude 1e+30", pokes(A, 1e30)),
    Case("integers", "has dtype torch.int8, expected a floating-point type", casts(torch.int8)),
    Case("flags", "has dtype torch.bool, expected a floating-point type", casts(torch.bool)),
    Case("eight-bit floats", "has dtype torch.float8_e4m3fn, expected", casts(torch.float8_e4m3fn)),
    Case("complex numbers", "has dtype torch.complex64, expected", casts(torch.complex64)),
    Case("bfloat16", None, casts(torch.bfloat16)),
    Case("float16", None, casts(torch.float16)),
    Case("float64", None, casts(torch.float64)),
    Case("B all zero", None, holds(lambda tensors: [t.zero_() for key, t in tensors.items() if "lora_B" in key])),
    Case("the adapter's name in each key", None, renames(lambda key: key.replace(".weight", ".style.weight")),
         before=True),
    Case("no prefix", None, renames(lambda key: key.removeprefix("base_model.model.")), before=True),
    Case("names of two adapters", "belong to two adapters; save one adapter per folder",
         renames(lambda key: key.replace("lora_B.weight", "lora_B.other.weight"))),
    Case("two adapters in one file", "'model.layers.0.self_attn.q_proj' has more than one lora_A",
         adds(f"{PREFIX}.lora_A.other.weight", 4, 32)),
    Case("a key with and without the prefix", "has more than one lora_A",
         adds(A.removeprefix("base_model.model."), 4, 32)),
    Case("the prefix twice", "tensors for 'base_model.model.model.layers.0", renames("base_model.model.{}".format)),
    Case("the prefix of distributed training", "tensors for 'module.base_model.model.", renames("module.{}".format)),
    Case("the prefix of torch.compile", "tensors for '_orig_mod.model.layers.0",
         renames(lambda key: key.replace("base_model.model.", "base_model.model._orig_mod."))),
    Case("keys in lower case", "lora_a.weight' is not lora_A or lora_B of a module",
         renames(lambda key: key.replace("lora_A", "lora_a"))),
    Case("modules in capitals", "tensors for 'model.layers.0.self_attn.Q_PROJ', which is not in the base model",
         renames(lambda key: key.replace("q_proj", "Q_PROJ"))),
    Case("keys of another library", "is not lora_A or lora_B of a module",
         renames(lambda key: key.replace("lora_A", "lora_down").replace("lora_B", "lora_up"))),
    Case("a module that is not a layer", "'model.layers.0.self_attn', which is a LlamaAttention, not a linear layer",
         holds(lambda tensors: tensors.update(
             {key.replace(".q_proj", ""): t.clone() for key, t in list(tensors.items()) if "q_proj" in key}))),
    Case("one tensor too many", "tensor 'base_model.model.score.weight' is not lora_A or lora_B",
         adds("base_model.model.score.weight", 2, 32)),
    Case("a larger vocabulary", "embed_tokens.weight' [300, 32] replaces an embedding or extends the vocabulary",
         adds("base_model.model.model.embed_tokens.weight", 300, 32)),
    Case("a trained bias", "q_proj.base_layer.bias' is a trained bias", adds(f"{PREFIX}.base_layer.bias", 32)),
    Case("a bias on lora_B", "lora_B.bias' is a trained bias", adds(f"{PREFIX}.lora_B.bias", 32)),
    Case("a magnitude", "lora_magnitude_vector' belongs to DoRA", adds(f"{PREFIX}.lora_magnitude_vector", 32)),
    Case("a diagonal", "lora_diag' belongs to KaSA", adds(f"{PREFIX}.lora_diag", 4)),
    Case("trained tokens without their key", "trainable_tokens_delta' holds trained tokens",
         adds("base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta", 1, 32)),
)
FEATURES = (
    Case("DoRA", "use_dora is set to True: DoRA rescales the base weight", train={"use_dora": True}),
    Case("modules_to_save that differ", "lm_head.weight' differs from the base model's: whole modules were trained",
         pokes("base_model.model.lm_head.weight", 9.0), {"modules_to_save": ["lm_head"]}),
    Case("modules_to_save that equal the base", None, train={"modules_to_save": ["lm_head", "model.norm"]}),
    Case("modules_to_save that equal the base, in fewer bits", None,
         holds(lambda tensors: tensors.update(
             {key: t.bfloat16() for key, t in tensors.items() if key.endswith("lm_head.weight")})),
         {"modules_to_save": ["lm_head"]}, before=True),
    Case("modules_to_save without tensors", "modules_to_save names 'lm_head', but adapter_model.safetensors has no",
         says(modules_to_save=["lm_head"])),
    Case("bias='all'", "bias must be 'none', got 'all'", train={"bias": "all"}),
    Case("bias='lora_only'", "bias must be 'none', got 'lora_only'", train={"bias": "lora_only"}),
    Case("lora_bias", "lora_bias is set to True: a bias on lora_B", train={"lora_bias": True}),
    Case("trained tokens", None, trains_tokens, {"trainable_token_indices": [70, 257 - 1]}),
    Case("trained tokens of embedding and output head", None, trains_tokens,
         {"trainable_token_indices": {"embed_tokens": [1, 2], "lm_head": [70]}}),
    Case("trained tokens beyond the vocabulary", "trainable_token_indices of 'model.embed_tokens' must list different",
         says(trainable_token_indices=[1, 300]), {"trainable_token_indices": [1, 2]}),
    Case("trained tokens without their rows", "trainable_token_indices names tokens of 'model.embed_tokens', but",
         says(trainable_token_indices=[1])),
    Case("more trained tokens than rows", "have shape [2, 32], but trainable_token_indices names 3 tokens",
         says(trainable_token_indices=[1, 2, 3]), {"trainable_token_indices": [1, 2]}),
    Case("trained tokens of another module", "trainable_token_indices names 'wpe', expected model.embed_tokens or",
         says(trainable_token_indices={"wpe": [1]})),
    Case("an adapted embedding", None, train={"target_modules": ["embed_tokens", "q_proj"]}),
    Case("an adapted embedding, without the base weight", None,
         holds(lambda tensors: [tensors.pop(key) for key in list(tensors) if ".base_layer." in key]),
         {"target_modules": ["embed_tokens", "q_proj"]}),
    Case("an adapted output head", None, train={"target_modules": ["q_proj", "lm_head"]}),
    Case("an adapted output head, without the base weight", None,
         holds(lambda tensors: [tensors.pop(key) for key in list(tensors) if ".base_layer." in key]),
         {"target_modules": ["lm_head"]}),
    Case("an adapted output head on another base weight",
         "tensor 'base_model.model.lm_head.base_layer.weight' is a copy of a base weight that differs",
         pokes("base_model.model.lm_head.base_layer.weight", 9.0), {"target_modules": ["lm_head"]}),
    Case("an output head with a larger vocabulary",
         "tensor 'base_model.model.lm_head.base_layer.weight' has shape [300, 32], the base model's has [257, 32]",
         train={"target_modules": ["lm_head"]}, model={"vocab_size": 300}),
    Case("embedding and output head, with patterns", None,
         train={"target_modules": ["embed_tokens", "lm_head"], "rank_pattern": {"lm_head": 20}, "use_rslora": True}),
    Case("an embedding with the names of a linear layer", "tensors for 'model.embed_tokens', which is a",
         renames(lambda key: re.sub("lora_embedding_([AB])", r"lora_\1.weight", key)),
         {"target_modules": ["embed_tokens", "q_proj"]}),
    Case("experts of a model without any", "target_parameters ['experts.w'] matches no parameter of the base model",
         says(target_parameters=["experts.w"])),
    Case("a bare parameter that is no layer", "target_parameters includes 'model.norm.weight' of a LlamaRMSNorm",
         says(target_parameters=["model.norm.weight"])),
    Case("linear layers by the names of their weights", None,
         train={"target_modules": [], "target_parameters": ["q_proj.weight", "v_proj.weight"]}),
    Case("replicated layers", "layer_replication is set to [[0, 2], [1, 2]]",
         train={"layer_replication": [[0, 2], [1, 2]]}),
    Case("an activated LoRA (aLoRA)", "alora_invocation_tokens is set to [5, 6]",
         train={"alora_invocation_tokens": [5, 6]}),
    Case("QA-LoRA", "use_qalora is set to True", says(use_qalora=True)),
    Case("Arrow", "arrow_config is set to {'top_k': 3}", says(arrow_config={"top_k": 3})),
    Case("VeLoRA", "velora_config is set to {'num_groups': 8}", says(velora_config={"num_groups": 8})),
    Case("MonteCLoRA", "monteclora_config is set to {'num_samples': 2}", says(monteclora_config={"num_samples": 2})),
    Case("BD-LoRA", "use_bdlora is set to {'nblocks': 2}", says(use_bdlora={"nblocks": 2})),
    Case("KaSA", "kasa_config is set to {'beta': 0.1}", says(kasa_config={"beta": 0.1})),
    Case("Megatron's layers", "megatron_config is set to {'tensor_parallel': 2}",
         says(megatron_config={"tensor_parallel": 2})),
    Case("custom layers", "_custom_modules is set to {'Linear': 'Mine'}", says(_custom_modules={"Linear": "Mine"})),
)
INITIALISATIONS = (
    Case("gaussian", None, train={"init_lora_weights": "gaussian"}),
    Case("orthogonal", None, train={"init_lora_weights": "orthogonal"}),
    Case("EVA", None, train={"init_lora_weights": "eva"}),
    Case("MiCA", None, train={"init_lora_weights": "mica"}),
    Case("random B", None, train={"init_lora_weights": False}),
    Case("PiSSA", "init_lora_weights is 'pissa', which may train against changed base weights; convert the adapter",
         train={"init_lora_weights": "pissa"}),
    Case("PiSSA by iterations", "init_lora_weights is 'pissa_niter_4'", train={"init_lora_weights": "pissa_niter_4"}),
    Case("OLoRA", "init_lora_weights is 'olora'", train={"init_lora_weights": "olora"}),
    Case("CorDA", "init_lora_weights is 'corda'", says(init_lora_weights="corda")),
    Case("LoftQ", "init_lora_weights is 'loftq'",
         says(init_lora_weights="loftq", loftq_config={"loftq_bits": 4, "loftq_iter": 1})),
    Case("LoRA-GA", "init_lora_weights is 'lora_ga'", says(init_lora_weights="lora_ga")),
    Case("an unknown initialisation", "init_lora_weights is 'magic'", says(init_lora_weights="magic")),
    Case("a number as initialisation", "init_lora_weights must be true, false or a name, got 7",
         says(init_lora_weights=7)),
)
# fmt: on

#: By heading, in the order of the page.
CASES: Mapping[str, tuple[Case, ...]] = {
    "Files": FILES,
    "Configuration": CONFIGURATION,
    "Target modules": TARGETS,
    "Tensors": TENSORS,
    "Features beside LoRA": FEATURES,
    "Initialisations": INITIALISATIONS,
}
