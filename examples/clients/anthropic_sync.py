"""Anthropic's own library.

LLAMASUP_URL=http://127.0.0.1:8080 python anthropic_sync.py

LLAMASUP_KEY is needed only where llamasup has keys.
"""

import os

import anthropic

client = anthropic.Anthropic(
    base_url=os.environ["LLAMASUP_URL"], api_key=os.environ.get("LLAMASUP_KEY", "none")
)
question = [{"role": "user", "content": "Count!"}]
weather = {
    "name": "weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}

with client.messages.stream(model="count", messages=question, max_tokens=5) as stream:
    print("stream:", *stream.text_stream, sep="")
    print("usage:", stream.get_final_message().usage.output_tokens)

answer = client.messages.create(model="tools", messages=question, max_tokens=100, tools=[weather])
[call] = [block for block in answer.content if block.type == "tool_use"]
print("tool:", call.name, call.input)
result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
messages = [
    *question,
    {"role": "assistant", "content": answer.content},
    {"role": "user", "content": [result]},
]
client.messages.create(model="tools", messages=messages, max_tokens=100, tools=[weather])

counted = client.messages.count_tokens(model="count", messages=question)
print("tokens:", counted.input_tokens > 0)

try:
    client.messages.create(model="none", messages=question, max_tokens=5)
except anthropic.NotFoundError as error:
    print("error:", error.body["error"]["type"])

# Leaving a stream stops the engine: the model is free for the next one at once.
with client.messages.stream(model="slow", messages=question, max_tokens=2000) as stream:
    next(iter(stream.text_stream))
hasty = client.with_options(timeout=10, max_retries=0)
hasty.messages.create(model="slow", messages=question, max_tokens=1)
print("left: free again")

try:
    client.with_options(timeout=0.5, max_retries=0).messages.create(
        model="slow", messages=question, max_tokens=2000
    )
except anthropic.APITimeoutError as error:
    print("timeout:", type(error).__name__)
