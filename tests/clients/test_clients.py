"""Each script talks to the server as its users do, and fails where an answer is not what the client promises."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

SCRIPTS = Path(__file__).parent / "scripts"
PYTHON = {  # script: package
    "openai_python": "openai",
    "litellm_client": "litellm",
    "langchain_client": "langchain-openai",
    "llama_index_client": "llama-index-llms-openai-like",
    "llm_client": "llm",
    "instructor_client": "instructor",
    "pydantic_ai_client": "pydantic-ai-slim[openai]",
    "open_webui_calls": "httpx",
}
NODE = ("openai_node", "ai_sdk")

pytestmark = pytest.mark.clients


def run(command: list[Any], url: str, **options: Any) -> None:
    own = {"BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "sesame", "OPENAI_BASE_URL": f"{url}/v1"}
    own |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": ""}
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_script_is_run() -> None:
    assert {path.stem for path in SCRIPTS.iterdir() if path.is_file()} == {*PYTHON, *NODE}


@pytest.mark.parametrize("script", PYTHON)
def test_python(environment: Any, url: str, script: str) -> None:
    run([environment.python(PYTHON[script]), SCRIPTS / f"{script}.py"], url)


@pytest.mark.parametrize("script", NODE)
def test_node(environment: Any, url: str, script: str) -> None:
    folder = environment.npm()
    copy = folder / f"{script}.mjs"  # Node looks for packages beside the script
    copy.write_text((SCRIPTS / f"{script}.mjs").read_text())
    run(["node", copy], url)
