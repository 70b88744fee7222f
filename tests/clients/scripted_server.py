"""Our server over a model that follows a script: it calls the tool that it is offered, then says what that returned.

What a client sees of it is decided by the code under test: templates, parsers, streams, errors.
"""

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fakes import ByteCodec, FakeEngine, FakeGrammar

from kaito_core.api.serving import ServingConfig
from kaito_runtime.adapters.manager import AdapterManager
from kaito_runtime.engine.protocol import Job, TokenStream
from kaito_runtime.http.app import create_app
from kaito_runtime.http.health import Health
from kaito_runtime.keys import ApiKeys

__all__ = ["scripted_server"]

TEMPLATE = (
    "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}{% endfor %}<answer>"
)
ANSWERS: dict[str, Any] = {"string": "Paris", "integer": 3, "number": 1.5, "boolean": True, "array": [], "null": None}


@dataclass
class ScriptedEngine(FakeEngine):
    """Writes what a well-behaved model would."""

    def submit(self, job: Job) -> TokenStream:
        self.text = _answer(bytes(job.prompt).decode(), job.sampling.grammar)
        return super().submit(job)


def _answer(prompt: str, grammar: Any) -> str:
    tools = re.search(r"<tools>(.*)</tools>", prompt, re.S)
    result = re.search(r".*<tool>(.*)<answer>", prompt, re.S)
    if isinstance(grammar, FakeGrammar) and grammar.form.kind == "json":
        return json.dumps(_example(grammar.form.value, grammar.form.value))
    if result is not None and not prompt.endswith("<tool_call>\n"):
        return f"It is {result[1]}."
    if tools is not None:
        function = json.loads(tools[1])[0]["function"]
        parameters = function.get("parameters") or {"type": "object"}
        call = json.dumps({"name": function["name"], "arguments": _example(parameters, parameters)})
        return call if prompt.endswith("<tool_call>\n") else f"<tool_call>\n{call}\n</tool_call>"
    return "The capital of France is Paris."


def _example(schema: dict[str, Any], root: dict[str, Any]) -> Any:
    """Returns a value that follows a schema."""
    if "$ref" in schema:
        return _example(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "enum" in schema or "const" in schema:
        return schema.get("const", (schema.get("enum") or [None])[0])
    if "anyOf" in schema:
        return _example(schema["anyOf"][0], root)
    if schema.get("type", "object") == "object":
        return {name: _example(each, root) for name, each in schema.get("properties", {}).items()}
    return ANSWERS[schema["type"]]


def scripted_server(folder: Path) -> uvicorn.Server:
    """Returns a server on any free port that requires the key "sesame"."""
    engine: Any = ScriptedEngine(context_length=20_000, ends=True)
    config = ServingConfig.model_validate({"model": {"name": "m"}})
    manager = AdapterManager(engine, config, adapters_dir=folder)
    asyncio.run(manager.refresh())
    app = create_app(
        engine,
        ByteCodec(TEMPLATE),
        manager,
        Health(engine, manager, warm=True),
        api_keys=ApiKeys.of("sesame"),
    )
    return uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
