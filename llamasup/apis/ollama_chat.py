"""Ollama's `/api/chat`, put to engines as OpenAI's chat completions. Pure.

Tools differ: here a call's arguments are an object, and a tool's answer says only the name of its
tool. OpenAI knows calls by ids, so each call without an id gets one, and the answers take those of
the calls before them: by name, in order.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Final

import msgspec

from llamasup.apis.ollama import Ollama
from llamasup.apis.ollama_replies import Teller, Telling, tool_calls
from llamasup.apis.ollama_requests import (
    NOTHING,
    Members,
    Request,
    chat_request,
    content,
    understood,
)
from llamasup.apis.openai_chat import Chat
from llamasup.apis.said import ChatListener, Said
from llamasup.apis.translation import Moment, Residence, Translation


class _Function(msgspec.Struct):
    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class _Call(msgspec.Struct):
    function: _Function = msgspec.field(default_factory=_Function)
    id: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[msgspec.Raw] | None = None
    tool_calls: list[_Call] | None = None
    tool_name: str | None = None
    name: str | None = None
    """What older clients write for `tool_name`."""

    tool_call_id: str | None = None


class _Chat(Request):
    messages: list[_Message] | None = None
    tools: msgspec.Raw = NOTHING


class OllamaChat(Ollama):
    """`/api/chat`."""

    about = "Ollama's chats"
    stream_paths = (b"/api/chat",)

    def translated(self, path: bytes, body: bytes) -> Translation | Residence:
        """See `Ollama.translated`."""
        asked = understood(body, _Chat)
        if not asked.messages:
            return Residence(not asked.unloads, lambda moment: _resident(moment, asked))
        request = chat_request(asked, _messages(asked.messages))
        if bytes(asked.tools) not in (b"null", b"[]"):
            request["tools"] = asked.tools
        return Translation(
            Chat.stream_paths[-1],
            msgspec.json.encode(request),
            asked.streams,
            _ChatReply,
            asked.unloads,
        )


def _resident(moment: Moment, asked: _Chat) -> bytes:
    message = {"message": {"role": "assistant", "content": ""}}
    return Teller(moment).resident(message, "unload" if asked.unloads else "load")


class _ChatReply(Telling):
    def __init__(self, moment: Moment) -> None:
        super().__init__(moment, ChatListener())

    def said(self, said: Said) -> Members:
        """See `Telling.said`."""
        calls, broken = tool_calls(said.calls)
        message: Members = {"role": "assistant", "content": said.text + broken}
        if said.thinking:
            message["thinking"] = said.thinking
        if calls:
            message["tool_calls"] = calls
        return {"message": message}


def _messages(messages: list[_Message]) -> list[Members]:
    """The messages as OpenAI's."""
    unanswered = _Unanswered([])
    made = 0
    translated = []
    for message in messages:
        members: Members = {"role": message.role}
        members["content"] = content(message.content or "", message.images)
        if message.thinking:
            members["reasoning_content"] = message.thinking
        if message.tool_calls:
            calls = [
                (call.function.name, call.id or f"call_{made + index}")
                for index, call in enumerate(message.tool_calls)
            ]
            made += len(calls)
            unanswered = _Unanswered(calls)
            members["tool_calls"] = [
                _call(call, id) for call, (_, id) in zip(message.tool_calls, calls, strict=True)
            ]
        if message.role == "tool":
            members |= _answered(message, unanswered)
        translated.append(members)
    return translated


def _call(call: _Call, id: str) -> Members:
    given = bytes(call.function.arguments)
    # Engines want the object as a text. What is no UTF-8 is theirs to refuse, here as elsewhere.
    is_text = given.startswith(b'"')
    arguments = call.function.arguments if is_text else given.decode(errors="replace")
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": id, "type": "function", "function": function}


class _Unanswered:
    """The calls of one message that no tool has answered yet, in order. To take one is quick, even
    among thousands."""

    def __init__(self, calls: Sequence[tuple[str, str]]) -> None:
        """The calls' names and ids."""
        self._calls = calls
        self._taken: set[int] = set()
        self._by = defaultdict[tuple[str, str], deque[int]](deque)
        for number, (name, id) in enumerate(calls):
            for key in (_ANY, ("name", name), ("id", id)):
                self._by[key].append(number)

    def take(self, id: str | None, name: str | None) -> tuple[str, str] | None:
        """The call with this id; or without an id the first one of this name, or of any."""
        key = ("id", id) if id else ("name", name) if name else _ANY
        numbers = self._by.get(key, _NONE)
        while numbers:
            if (number := numbers.popleft()) not in self._taken:
                self._taken.add(number)
                return self._calls[number]
        return None


_ANY: Final = ("", "")
_NONE: Final = deque[int]()


def _answered(message: _Message, unanswered: _Unanswered) -> Members:
    """Which call a tool's message answers; that call is taken off those unanswered."""
    name = message.tool_name or message.name
    if call := unanswered.take(message.tool_call_id, name):
        return {"name": call[0], "tool_call_id": call[1]}
    members: Members = {"name": name} if name else {}
    if message.tool_call_id:
        members["tool_call_id"] = message.tool_call_id
    return members
