"""llama-index: completion, chat, stream, tools."""

import os

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def weather(city: str) -> str:
    """Says the weather."""
    return f"sunny in {city}"


asked = {"model": "m", "api_base": os.environ["BASE_URL"], "api_key": "sesame", "max_retries": 0}
model = OpenAILike(**asked, is_chat_model=True, is_function_calling_model=True, context_window=20_000)
assert str(model.complete("Where?")) == "The capital of France is Paris."
assert OpenAILike(**asked, is_chat_model=False).complete("Where?").text.startswith("The capital")
assert model.chat([ChatMessage("Where?")]).message.content.endswith("Paris.")
assert list(model.stream_chat([ChatMessage("Where?")]))[-1].message.content.endswith("Paris.")
response = model.predict_and_call([FunctionTool.from_defaults(weather)], "Where?")
assert str(response) == "sunny in Paris"
