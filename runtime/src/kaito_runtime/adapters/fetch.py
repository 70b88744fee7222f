"""Fetches a base model's weights from the hub; adapters are fetched by `kaito_core.fetch`."""

import os
from collections.abc import Sequence
from pathlib import Path

from kaito_runtime.errors import ServeError

__all__ = ["FetchError", "fetch_model"]

_MODEL_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
_OTHER_FORMATS = ("original/*", "consolidated*", "onnx/*", "*.bin", "*.pt", "*.pth")


class FetchError(ServeError):
    """A source cannot be fetched; the message names it and the cause."""


def fetch_model(repository: str, revision: str, to: Path) -> None:
    """Downloads a model's safetensors, configuration and tokenizer; what is there already is kept.

    Raises:
        FetchError: The hub refuses, or the repository has no safetensors.
    """
    _snapshot(repository, revision, to, _MODEL_FILES, _OTHER_FORMATS)
    if not (to / "config.json").is_file() or not any(to.glob("*.safetensors")):
        raise FetchError(f"{repository}@{revision} has no config.json or no *.safetensors")


def _snapshot(repository: str, revision: str, to: Path, wanted: Sequence[str], ignored: Sequence[str]) -> None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(
            repository,
            revision=revision,
            local_dir=to,
            allow_patterns=list(wanted),
            ignore_patterns=list(ignored),
            token=os.environ.get("HF_TOKEN") or None,
        )
    except Exception as error:  # the hub client raises its own, httpx's, OSError and ValueError
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise FetchError(f"{repository}@{revision} cannot be fetched: {lines[0]}") from error
