"""OpenAI's own client: chat, stream, tools, structured output, responses, errors."""

import openai
from pydantic import BaseModel


class City(BaseModel):
    name: str
    capital: bool


TOOL = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": TOOL, "strict": True}}]
USER = [{"role": "user", "content": "Where?"}]
client = openai.OpenAI(max_retries=0, _strict_response_validation=True)

assert "m" in {model.id for model in client.models.list()}
assert client.models.retrieve("m").max_model_len == 20_000
answer = client.chat.completions.create(model="m", messages=USER)
assert answer.choices[0].message.content == "The capital of France is Paris."
stream = client.chat.completions.create(model="m", messages=USER, stream=True, stream_options={"include_usage": True})
assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices) == "The capital of France is Paris."

for choice in ("auto", "required", {"type": "function", "function": {"name": "weather"}}):
    called = client.chat.completions.create(model="m", messages=USER, tools=TOOLS, tool_choice=choice).choices[0]
    assert called.finish_reason == "tool_calls" and called.message.tool_calls[0].function.name == "weather"
    talk = [
        *USER,
        called.message,
        {"role": "tool", "tool_call_id": called.message.tool_calls[0].id, "content": "sunny"},
    ]
    last = client.chat.completions.create(model="m", messages=talk, tools=TOOLS)
    assert last.choices[0].message.content == "It is sunny."

parsed = client.chat.completions.parse(model="m", messages=USER, response_format=City)
assert parsed.choices[0].message.parsed == City(name="Paris", capital=True)
response = client.responses.create(model="m", input="Where?")
assert response.output_text == "The capital of France is Paris."
assert client.responses.parse(model="m", input="Where?", text_format=City).output_parsed == City(
    name="Paris", capital=True
)
kinds = [event.type for event in client.responses.create(model="m", input="Where?", stream=True)]
assert kinds[0] == "response.created" and kinds[-1] == "response.completed"

for bad, error in (
    ({"model": "nope"}, openai.NotFoundError),
    ({"temperature": -1}, openai.BadRequestError),
    ({"messages": [{"role": "user", "content": "x" * 30_000}]}, openai.BadRequestError),
):
    try:
        client.chat.completions.create(**{"model": "m", "messages": USER} | bad)
    except error as caught:
        assert caught.body["message"] and caught.type == "invalid_request_error"
    else:
        raise AssertionError(bad)
try:
    openai.OpenAI(api_key="wrong", max_retries=0).models.list()
except openai.AuthenticationError as caught:
    assert caught.code == "invalid_api_key"
