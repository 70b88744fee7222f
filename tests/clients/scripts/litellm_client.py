"""litellm: chat, stream, tools, structured output, and the errors that its fallbacks look for."""

import os

import litellm
from litellm import Router
from pydantic import BaseModel

litellm.suppress_debug_info = True


class City(BaseModel):
    name: str


USER = [{"role": "user", "content": "Where?"}]
ASKED = {"model": "openai/m", "api_base": os.environ["BASE_URL"], "messages": USER}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]

assert litellm.completion(**ASKED).choices[0].message.content == "The capital of France is Paris."
assert "".join(c.choices[0].delta.content or "" for c in litellm.completion(**ASKED, stream=True)).endswith("Paris.")
call = litellm.completion(**ASKED, tools=TOOLS).choices[0]
assert call.finish_reason == "tool_calls" and call.message.tool_calls[0].function.name == "weather"
chunks = list(litellm.completion(**ASKED, tools=TOOLS, stream=True))
assert litellm.stream_chunk_builder(chunks).choices[0].message.tool_calls[0].function.arguments == "{}"
assert City.model_validate_json(litellm.completion(**ASKED, response_format=City).choices[0].message.content)

try:
    litellm.completion(**ASKED | {"messages": [{"role": "user", "content": "x" * 30_000}]})
except litellm.BadRequestError as error:
    assert "context" in str(error)
else:
    raise AssertionError("a long prompt was served")
try:
    litellm.completion(**ASKED | {"model": "openai/nope"})
except litellm.NotFoundError:
    pass
else:
    raise AssertionError("an unknown model was served")

deployments = [
    {"model_name": name, "litellm_params": {"model": f"openai/{model}", "api_base": os.environ["BASE_URL"]}}
    for name, model in (("first", "nope"), ("second", "m"))
]
router = Router(model_list=deployments, fallbacks=[{"first": ["second"]}], num_retries=0)
assert router.completion(model="first", messages=USER).choices[0].message.content.endswith("Paris.")
