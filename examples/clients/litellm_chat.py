"""LiteLLM, as a library: the prefix openai/ says how the server speaks.

LLAMASUP_URL=http://127.0.0.1:8080 python litellm_chat.py
"""

import os

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the internet
import litellm

litellm.suppress_debug_info = True

server = {"api_base": os.environ["LLAMASUP_URL"] + "/v1", "api_key": "none"}
question = [{"role": "user", "content": "Count!"}]
weather = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
form = {
    "type": "object",
    "properties": {"correct": {"type": "boolean"}},
    "required": ["correct"],
    "additionalProperties": False,
}


def chat(model: str, **more: object) -> object:
    return litellm.completion(f"openai/{model}", question, **server, **more)


stream = chat("count", max_tokens=5, stream=True)
print("stream:", *(chunk.choices[0].delta.content or "" for chunk in stream), sep="")

[call] = chat("tools", tools=[weather]).choices[0].message.tool_calls
print("tool:", call.function.name, call.function.arguments)

schema = {"type": "json_schema", "json_schema": {"name": "sum", "schema": form, "strict": True}}
answer = chat("count", response_format=schema)
print("schema:", "correct" in answer.choices[0].message.content)

tokens = chat("count", max_tokens=2, logprobs=True).choices[0].logprobs.content
print("logprobs:", *(token.token for token in tokens), sep="")

vectors = litellm.embedding("openai/embed", input=["one", "two"], **server)
print("embeddings:", *(len(vector["embedding"]) for vector in vectors.data))

for number in ("none", "count"):
    try:
        chat(number, **({} if number == "none" else {"temperature": "hot"}))
    except (litellm.NotFoundError, litellm.BadRequestError, litellm.InternalServerError) as error:
        print(f"error {number}:", type(error).__name__)

stream = chat("slow", max_tokens=2000, stream=True)
next(chunk for chunk in stream if chunk.choices[0].delta.content)
stream.completion_stream.close()
chat("slow", max_tokens=1, timeout=10, num_retries=0)
print("left: free again")

try:
    chat("slow", max_tokens=2000, timeout=0.5, num_retries=0, max_retries=0)
except litellm.Timeout as error:
    print("timeout:", type(error).__name__)
