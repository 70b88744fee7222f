"""Writes small adapters as PEFT saves them, without torch."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["Q_PROJ", "save_tensors", "write_adapter"]

Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


def save_tensors(path: Path, tensors: Mapping[str, tuple[str, Sequence[int], bytes]]) -> None:
    """Writes a safetensors file of (dtype, shape, data) by name."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_adapter(folder: Path, *, value: float = 0.5, **config: Any) -> Path:
    """Writes an adapter of rank 4 on one layer of 8 by 8."""
    folder.mkdir(parents=True, exist_ok=True)
    written = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none"} | config
    (folder / "adapter_config.json").write_text(json.dumps(written))
    data = struct.pack("<32f", *([0.25] * 31), value)
    save_tensors(
        folder / "adapter_model.safetensors",
        {f"{Q_PROJ}.lora_A.weight": ("F32", (4, 8), data), f"{Q_PROJ}.lora_B.weight": ("F32", (8, 4), data)},
    )
    return folder
