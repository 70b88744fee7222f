"""pydantic-ai: an agent with a tool, structured output by tools and natively, a stream, responses."""

import asyncio
import os

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider


class City(BaseModel):
    name: str
    capital: bool


provider = OpenAIProvider(base_url=os.environ["BASE_URL"], api_key="sesame")
for kind in (OpenAIChatModel, OpenAIResponsesModel):
    model = kind("m", provider=provider)
    assert Agent(model).run_sync("Where?").output.endswith("Paris.")
    agent = Agent(model)

    @agent.tool_plain
    def weather(city: str) -> str:
        """Says the weather."""
        return "sunny"

    assert agent.run_sync("Where?").output == "It is sunny."
    assert Agent(model, output_type=City).run_sync("Where?").output == City(name="Paris", capital=True)
    assert Agent(model, output_type=NativeOutput(City)).run_sync("Where?").output == City(name="Paris", capital=True)

    async def stream(agent: Agent) -> str:
        async with agent.run_stream("Where?") as result:
            return [text async for text in result.stream_text()][-1]

    assert asyncio.run(
        stream(Agent(kind("m", provider=OpenAIProvider(base_url=os.environ["BASE_URL"], api_key="sesame"))))
    ).endswith("Paris.")
