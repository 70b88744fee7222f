"""The weights from the hub, and the digest that `kaito-fetch` and the server agree on."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kaito_core.api.fetching import digest_of
from kaito_runtime.adapters.fetch import FetchError, fetch_model
from kaito_runtime.formats.files import read_adapter
from kaito_runtime.testing.models import load_fp32


def test_digest_is_the_one_that_the_server_checks(tiny_llama: Path, tiny_adapters: Path) -> None:
    adapter = tiny_adapters / "one"
    digest = digest_of(adapter)
    assert read_adapter(adapter, load_fp32(tiny_llama), name="a", digest=digest).digest == digest


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for the hub's client; keeps what it was asked for."""
    asked: list[dict[str, Any]] = []

    def snapshot_download(repository: str, **options: Any) -> None:
        asked.append({"repository": repository, **options})
        if repository == "org/gone":
            raise OSError("404 Client Error.\nRequest ID: 1")

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    return asked


def test_hub_errors_are_one_line(hub: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"^org/gone@main cannot be fetched: 404 Client Error.$"):
        fetch_model("org/gone", "main", tmp_path / "to")


def test_weights_are_fetched_without_pickles(
    hub: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "token")
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors").touch()
    fetch_model("org/model", "abc", tmp_path)
    assert hub[0]["token"] == "token"
    assert not any(pattern.endswith((".bin", ".pt", "*")) for pattern in hub[0]["allow_patterns"])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FetchError, match=r"org/model@abc has no config.json or no \*.safetensors"):
        fetch_model("org/model", "abc", tmp_path)
