"""Ollama's own library.

LLAMASUP_URL=http://127.0.0.1:8080 python ollama_sync.py
"""

import os

import httpx
import ollama

client = ollama.Client(os.environ["LLAMASUP_URL"], timeout=10)
question = [{"role": "user", "content": "Count!"}]
form = {"type": "object", "properties": {"correct": {"type": "boolean"}}, "required": ["correct"]}


def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: where
    """
    return f"rain in {city}"


print("models:", *sorted(model.model for model in client.list().models))

stream = client.chat("count", question, options={"num_predict": 5}, stream=True)
print("stream:", *(part.message.content for part in stream), sep="")

[call] = client.chat("tools", question, tools=[weather]).message.tool_calls
print("tool:", weather(**call.function.arguments))

answer = client.chat("count", question, format=form)
print("schema:", "correct" in answer.message.content)

print("embeddings:", *map(len, client.embed("embed", ["one", "two"]).embeddings))

try:
    client.chat("none", question)
except ollama.ResponseError as error:
    print("error:", error.status_code)

stream = client.chat("slow", question, options={"num_predict": 2000}, stream=True)
next(stream)
stream.close()
client.chat("slow", question, options={"num_predict": 1})
print("left: free again")

try:
    hasty = ollama.Client(os.environ["LLAMASUP_URL"], timeout=0.5)
    hasty.chat("slow", question, options={"num_predict": 2000})
except httpx.ReadTimeout as error:
    print("timeout:", type(error).__name__)
