"""LlamaIndex, by way of its OpenAILike classes.

LLAMASUP_URL=http://127.0.0.1:8080 python llama_index_chat.py
"""

import gc
import os

import openai
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

server = {"api_base": os.environ["LLAMASUP_URL"] + "/v1", "api_key": "none"}
chats = {"is_chat_model": True, "is_function_calling_model": True, **server}
question = [ChatMessage(role="user", content="Count!")]


class Sum(BaseModel):
    """The form of an answer."""

    correct: bool


def weather(city: str) -> str:
    """Tell the weather."""
    return f"rain in {city}"


count = OpenAILike(model="count", max_tokens=5, **chats)
print("stream:", *(chunk.delta for chunk in count.stream_chat(question)), sep="")
print("chat:", count.chat(question).message.content, sep="")

tools = OpenAILike(model="tools", **chats)
answer = tools.chat_with_tools([FunctionTool.from_defaults(weather)], user_msg="Hi!")
[call] = tools.get_tool_calls_from_response(answer)
print("tool:", weather(**call.tool_kwargs))

form = OpenAILike(model="count", should_use_structured_outputs=True, **chats)
print("schema:", type(form.as_structured_llm(Sum).chat(question).raw).__name__)

embeddings = OpenAILikeEmbedding(model_name="embed", **server)
print("embeddings:", *map(len, embeddings.get_text_embedding_batch(["one", "two"])))

try:
    OpenAILike(model="none", max_retries=0, **chats).chat(question)
except openai.NotFoundError as error:
    print("error:", error.code)

slow = OpenAILike(model="slow", max_retries=0, timeout=10, **chats)
stream = slow.stream_chat(question, max_tokens=2000)
next(chunk for chunk in stream if chunk.delta)
del stream
gc.collect()  # LlamaIndex itself closes no connection, but the last who holds it does
slow.chat(question, max_tokens=1)
print("left: free again")
