"""OpenAI's own library: whatever it can do with a chat, and with what goes wrong.

LLAMASUP_URL=http://127.0.0.1:8080 python openai_sync.py

LLAMASUP_KEY is needed only where llamasup has keys.
"""

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Timer

import openai
from pydantic import BaseModel

client = openai.OpenAI(
    base_url=os.environ["LLAMASUP_URL"] + "/v1", api_key=os.environ.get("LLAMASUP_KEY", "none")
)
question = [{"role": "user", "content": "Count!"}]
weather = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


class Sum(BaseModel):
    """The form of an answer."""

    correct: bool


print("models:", *sorted(model.id for model in client.models.list()))

stream = client.chat.completions.create(
    model="count",
    messages=question,
    max_tokens=5,
    stream=True,
    stream_options={"include_usage": True},
)
chunks = list(stream)
print("stream:", *(c.choices[0].delta.content or "" for c in chunks if c.choices), sep="")
print("usage:", chunks[-1].usage.completion_tokens)

answer = client.chat.completions.create(model="tools", messages=question, tools=[weather])
call = answer.choices[0].message.tool_calls[0]
print("tool:", call.function.name, call.function.arguments)
result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
messages = [*question, answer.choices[0].message, result]
client.chat.completions.create(model="tools", messages=messages, tools=[weather])

parsed = client.chat.completions.parse(model="count", messages=question, response_format=Sum)
print("schema:", type(parsed.choices[0].message.parsed).__name__)

answer = client.chat.completions.create(
    model="count", messages=question, max_tokens=2, logprobs=True, top_logprobs=2
)
print("logprobs:", *(token.token for token in answer.choices[0].logprobs.content), sep="")

vectors = client.embeddings.create(model="embed", input=["one", "two"])
print("embeddings:", *(len(vector.embedding) for vector in vectors.data))

answer = client.responses.create(model="count", input="Count!", max_output_tokens=3)
print("responses:", answer.output_text, sep="")
events = client.responses.create(model="count", input="Count!", max_output_tokens=3, stream=True)
deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
print("responses stream:", *deltas, sep="")

try:
    client.chat.completions.create(model="none", messages=question)
except openai.NotFoundError as error:
    print("error:", error.code)
try:
    client.chat.completions.create(model="count", messages=question, temperature="hot")
except openai.APIStatusError as error:
    print("mistake:", type(error).__name__)

# Leaving a stream stops the engine: the model is free for the next one at once.
with client.chat.completions.create(
    model="slow", messages=question, max_tokens=2000, stream=True
) as stream:
    next(chunk for chunk in stream if chunk.choices[0].delta.content)
hasty = client.with_options(timeout=10, max_retries=0)
hasty.chat.completions.create(model="slow", messages=question, max_tokens=1)
print("left: free again")

try:
    client.with_options(timeout=0.5, max_retries=0).chat.completions.create(
        model="slow", messages=question, max_tokens=2000
    )
except openai.APITimeoutError as error:
    print("timeout:", type(error).__name__)
hasty.chat.completions.create(model="slow", messages=question, max_tokens=1)

# One is answered, one waits, and then the queue is full: the third is told when to come again.
short = {"model": "slow", "messages": question, "max_tokens": 1}
answered = client.chat.completions.create(**{**short, "max_tokens": 2000, "stream": True})
next(iter(answered))


def refused() -> str:
    """The code of the error, if there is one."""
    try:
        hasty.chat.completions.create(**short)
    except openai.RateLimitError as error:
        return error.code
    return ""


with ThreadPoolExecutor() as threads:
    two = [threads.submit(refused) for _ in range(2)]
    print("full:", next(as_completed(two)).result())
    Timer(0.5, answered.close).start()
    patient = client.with_options(max_retries=8).chat.completions.with_raw_response
    reply = patient.create(**short)
    print("came again:", reply.retries_taken > 0, reply.parse().choices[0].finish_reason)
