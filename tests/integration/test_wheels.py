"""Wheels in a fresh environment: a third party's package is served, and gone once it is uninstalled."""

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from helpers.fresh_venv import FreshVenv, Wheels, build_wheel
from kaito_runtime.testing.models import save_model

pytestmark = pytest.mark.slow

WORKSPACE = """
apiVersion: kaito.sh/v1beta1
kind: Workspace
metadata: {name: tiny}
inference:
  preset: {name: acme}
"""


def presets(venv: FreshVenv) -> list[str]:
    return [record["name"] for record in json.loads(venv.run("kaito", "presets", "list", "-o", "json"))]


def test_a_third_partys_model_is_served_from_wheels(venv: FreshVenv, wheels: Wheels, tmp_path: Path) -> None:
    venv.run("pip", "install", wheels.of("runtime"), wheels.of("plugins/llama"))
    where = venv.run(
        "python", "-c", "import kaito_core, kaito_runtime; print(kaito_core.__file__, kaito_runtime.__file__)"
    )
    assert all(path.startswith(str(tmp_path)) for path in where.split())
    assert "acme" not in presets(venv)

    venv.run("kaito", "new", "model", "acme", "--to", tmp_path)
    venv.run("pip", "install", build_wheel(tmp_path / "kaito-acme", tmp_path / "wheels"))
    assert "acme" in presets(venv)

    (tmp_path / "workspace.yaml").write_text(WORKSPACE)
    model = save_model(tmp_path / "model", "llama")
    command = ["kaito", "up", str(tmp_path / "workspace.yaml"), "--weights", str(model), "--port", "0"]
    with subprocess.Popen(
        ["/usr/bin/env", *command], env=venv.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()  # blocks until it is ready or has ended
            assert line.startswith("ready: "), process.stderr.read()
            url = line.removeprefix("ready: ").strip()
            cards = [card["id"] for card in httpx.get(f"{url}/v1/models").json()["data"]]
            assert "acme" in cards
            body = {"model": "acme", "prompt": "hello", "max_tokens": 4, "temperature": 0}
            answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()
            assert answer["usage"]["completion_tokens"] > 0
        finally:
            process.terminate()
            process.wait(60)

    venv.run("pip", "uninstall", "--yes", "kaito-acme")
    assert "acme" not in presets(venv)
    refused = venv.try_run("kaito", "validate", tmp_path / "workspace.yaml")
    assert refused.returncode == 1
    assert "'acme' is not an installed preset" in refused.stdout
