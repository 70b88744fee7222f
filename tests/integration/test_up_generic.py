"""`kaito up` with a model that no plugin brings: its preset comes from the config.json among its weights."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from kaito_runtime.testing.models import save_model

WORKSPACE = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: tiny}
inference: {preset: {name: Acme/Tiny-Llama}}
"""


@pytest.mark.slow
def test_a_model_that_no_plugin_brings_is_served(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "llama")
    (tmp_path / "workspace.yaml").write_text(WORKSPACE)
    command = [sys.executable, "-m", "kaito_core.cli", "up", "workspace.yaml", "--port", "0", "--weights", model]
    environment = {**os.environ, "KAITO_ALLOW_GENERIC_MODELS": "true"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()  # blocks until it is ready or has ended
            assert line.startswith("ready: "), process.stderr.read()
            url = line.removeprefix("ready: ").strip()
            cards = {card["id"]: card for card in httpx.get(f"{url}/v1/models").json()["data"]}
            assert set(cards) == {"acme--tiny-llama", "base"}
            assert cards["base"]["max_model_len"] == 256
            body = {"model": "acme--tiny-llama", "prompt": "hi", "max_tokens": 3}
            answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
            assert (answer.status_code, answer.json()["model"]) == (200, "acme--tiny-llama")
        finally:
            process.terminate()
            process.wait(60)
