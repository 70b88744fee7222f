"""What `kaito up` says before anything is loaded."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kaito_core.local.pod import Command, LocalPod
from kaito_core.local.up import _run
from kaito_testing.registry import example_preset


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ({"gpus": 0, "gpu_memory_gib": 0}, ""),
        ({"gpus": 1, "gpu_memory_gib": 16}, ""),
        ({"gpus": 2, "gpu_memory_gib": 60}, "note: in a cluster big takes 2 GPUs; here one process serves it"),
        (
            {"gpus": 8, "gpu_memory_gib": 600, "distributed": True},
            "note: in a cluster big takes 8 GPUs on several nodes; here one process serves it",
        ),
    ],
)
def test_one_process_is_no_surprise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], preset: dict[str, Any], said: str
) -> None:
    fails = Command("weights", ("false",), {})
    pod = LocalPod((fails,), fails, tmp_path)
    assert asyncio.run(_run(pod, example_preset(name="big", **preset), (), "http://127.0.0.1:1")) == 1
    first, *_ = capsys.readouterr().err.splitlines()
    assert first.startswith(said or "step weights: ")
