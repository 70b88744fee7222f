"""Whether a GPU still works. torch is patched here: what a real GPU responds is CUDA's contract."""

from types import SimpleNamespace

import pytest
import torch

from kaito_runtime.engine.device import why_lost

ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"


@pytest.mark.parametrize("busy", [False, True])
def test_gpu_that_answers_is_not_lost(monkeypatch: pytest.MonkeyPatch, busy: bool) -> None:
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(query=lambda: not busy))
    assert why_lost(torch.device("cuda", 0)) == ""


def test_gpu_whose_every_call_fails_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def query() -> bool:
        raise torch.AcceleratorError(ILLEGAL)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(query=query))
    reason = "AcceleratorError: CUDA error: an illegal memory access was encountered"
    assert why_lost(torch.device("cuda", 0)) == reason
    assert why_lost(torch.device("cpu")) == ""
