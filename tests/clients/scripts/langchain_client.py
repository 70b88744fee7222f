"""langchain-openai: chat, stream, tools, structured output in each of its ways, responses, fallbacks."""

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    name: str
    capital: bool


@tool
def weather(city: str) -> str:
    """Says the weather."""
    return "sunny"


model = ChatOpenAI(model="m", max_retries=0)
assert model.invoke("Where?").content == "The capital of France is Paris."
assert "".join(chunk.content for chunk in model.stream("Where?")) == "The capital of France is Paris."

talk = [HumanMessage("Where?")]
call = model.bind_tools([weather]).invoke(talk)
assert call.tool_calls[0]["name"] == "weather" and call.tool_calls[0]["args"] == {"city": "Paris"}
talk += [call, ToolMessage(weather.invoke(call.tool_calls[0]["args"]), tool_call_id=call.tool_calls[0]["id"])]
assert model.bind_tools([weather]).invoke(talk).content == "It is sunny."
gathered = None
for chunk in model.bind_tools([weather]).stream("Where?"):
    gathered = chunk if gathered is None else gathered + chunk
assert gathered.tool_calls[0]["args"] == {"city": "Paris"}

for method in ("function_calling", "json_schema", "json_mode"):
    structured = model.with_structured_output(City if method != "json_mode" else None, method=method)
    assert structured.invoke("Where? Answer in JSON.") in (City(name="Paris", capital=True), {}), method
assert ChatOpenAI(model="m", use_responses_api=True).invoke("Where?").text.endswith("Paris.")
unknown = ChatOpenAI(model="nope", max_retries=0).with_fallbacks([model])
assert unknown.invoke("Where?").content.endswith("Paris.")
