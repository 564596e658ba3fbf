"""LangChain, by way of langchain-openai.

LLAMASUP_URL=http://127.0.0.1:8080 python langchain_chat.py
"""

import os

import openai
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

server = {"base_url": os.environ["LLAMASUP_URL"] + "/v1", "api_key": "none"}


class Sum(BaseModel):
    """The form of an answer."""

    correct: bool


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"rain in {city}"


count = ChatOpenAI(model="count", max_tokens=5, **server)
print("stream:", *(chunk.content for chunk in count.stream("Count!")), sep="")

[call] = ChatOpenAI(model="tools", **server).bind_tools([weather]).invoke("Hi!").tool_calls
print("tool:", weather.invoke(call).content)

form = ChatOpenAI(model="count", **server).with_structured_output(Sum, method="json_schema")
print("schema:", type(form.invoke("Count!")).__name__)

answer = ChatOpenAI(model="count", max_tokens=2, logprobs=True, **server).invoke("Count!")
tokens = answer.response_metadata["logprobs"]["content"]
print("logprobs:", *(token["token"] for token in tokens), sep="")

# The server's tokens are not OpenAI's, so text has to be sent as text.
embeddings = OpenAIEmbeddings(model="embed", check_embedding_ctx_length=False, **server)
print("embeddings:", *map(len, embeddings.embed_documents(["one", "two"])))

try:
    ChatOpenAI(model="none", **server).invoke("Hi!")
except openai.NotFoundError as error:
    print("error:", error.code)

slow = ChatOpenAI(model="slow", timeout=10, max_retries=0, **server)
stream = slow.stream("Count!", max_tokens=2000)
next(chunk for chunk in stream if chunk.content)
stream.close()
slow.invoke("Count!", max_tokens=1)
print("left: free again")

try:
    ChatOpenAI(model="slow", timeout=0.5, max_retries=0, max_tokens=2000, **server).invoke("Hi!")
except openai.APITimeoutError:  # or a class of LangChain's own below it
    print("timeout: told")
