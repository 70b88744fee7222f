"""instructor: a model of pydantic out of tools, of JSON and of a JSON schema."""

import instructor
import openai
from pydantic import BaseModel


class City(BaseModel):
    name: str
    capital: bool


USER = [{"role": "user", "content": "Where?"}]
for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(openai.OpenAI(max_retries=0), mode=mode)
    city = client.chat.completions.create(model="m", messages=USER, response_model=City, max_retries=0)
    assert (city.name, city.capital) == ("Paris", True), mode
