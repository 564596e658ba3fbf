"""instructor: answers as objects, by a schema or by a tool.

LLAMASUP_URL=http://127.0.0.1:8080 python instructor_extract.py
"""

import os

import instructor
import openai
from pydantic import BaseModel

client = openai.OpenAI(base_url=os.environ["LLAMASUP_URL"] + "/v1", api_key="none")
question = [{"role": "user", "content": "Count!"}]


class Sum(BaseModel):
    """The form of an answer."""

    correct: bool


class weather(BaseModel):
    """Where the weather is wanted."""

    city: str


by_schema = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)
found = by_schema.chat.completions.create(
    model="count", messages=question, response_model=Sum, max_tokens=100
)
print("schema:", type(found).__name__)

by_tool = instructor.from_openai(client, mode=instructor.Mode.TOOLS)
found = by_tool.chat.completions.create(model="tools", messages=question, response_model=weather)
print("tool:", found)

parts = by_schema.chat.completions.create_partial(
    model="count", messages=question, response_model=Sum, max_tokens=100
)
print("partial:", type([*parts][-1]).__name__)
