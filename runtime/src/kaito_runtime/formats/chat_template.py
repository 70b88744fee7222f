"""The chat template in an adapter's folder, as transformers, trl and Unsloth save it."""

import json
from pathlib import Path

from kaito_runtime.errors import AdapterLoadError

__all__ = ["read_chat_template"]

_MOST_BYTES = 4 << 20


def read_chat_template(folder: Path, *, name: str) -> str:
    """Returns the template of an adapter; "" where it brings none.

    Args:
        name: The adapter's name, for messages.

    Raises:
        AdapterLoadError: The file that has it cannot be read.
    """
    try:
        if text := _content(folder / "chat_template.jinja"):
            return text
        found = json.loads(_content(folder / "tokenizer_config.json") or "{}")
        template = found.get("chat_template") if isinstance(found, dict) else None
        if isinstance(template, list):  # several, each with a name
            named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
            template = named.get("default")
        return template if isinstance(template, str) else ""
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterLoadError(name, f"its chat template cannot be read: {error}") from error


def _content(path: Path) -> str:
    if not path.is_file():
        return ""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path.name} is larger than {_MOST_BYTES} bytes")
    return path.read_text(encoding="utf-8")
