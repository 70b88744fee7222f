"""Writes small adapters without torch, honest and broken."""

import json
import struct
from pathlib import Path
from typing import Any

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}


def tensors(count: int = 64, **changes: Any) -> bytes:
    """Returns a safetensors file of one tensor with `count` bytes."""
    entry = {"dtype": "U8", "shape": [count], "data_offsets": [0, count], **changes}
    return safetensors(json.dumps({"weight": entry}).encode(), bytes(index % 251 for index in range(count)))


def safetensors(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """Returns a safetensors file with the given header, whatever it says of its own length."""
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def write_adapter(folder: Path, count: int = 64, config: bytes | None = None, **others: bytes) -> Path:
    """Writes an adapter; `others` are further files, with "_" for the last "."."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_bytes(json.dumps(CONFIG).encode() if config is None else config)
    (folder / "adapter_model.safetensors").write_bytes(tensors(count))
    for name, content in others.items():
        stem, _, suffix = name.rpartition("_")
        (folder / f"{stem}.{suffix}").write_bytes(content)
    return folder
