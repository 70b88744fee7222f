"""llm, the command line tool: a model in its file of models, chat, tools, a schema."""

import os
import pathlib
import subprocess
import sys
import tempfile

home = pathlib.Path(tempfile.mkdtemp())
entry = f"""
- model_id: ours
  model_name: m
  api_base: {os.environ["BASE_URL"]}
  api_key_name: ours
  supports_tools: true
  supports_schema: true
"""
(home / "extra-openai-models.yaml").write_text(entry)


def llm(*arguments: str) -> str:
    command = [sys.executable, "-m", "llm", *arguments, "-m", "ours", "--key", "sesame"]
    done = subprocess.run(command, env=os.environ | {"LLM_USER_PATH": str(home)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


assert llm("Where?").strip() == "The capital of France is Paris."
assert llm("Where?", "--no-stream").strip() == "The capital of France is Paris."
assert "Paris" in llm("Where?", "--schema", "name, capital bool")
code = 'def weather(city: str) -> str:\n    "Says the weather."\n    return "sunny"'
assert llm("Where?", "--functions", code).strip().endswith("It is sunny.")
