"""How an engine's answer is told in Ollama's APIs: as lines, or as one document. Pure."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import msgspec
from attrs import frozen

from llamasup.apis.ollama_requests import Members
from llamasup.apis.said import Call, End, Failure, Listener, Said
from llamasup.apis.translation import Moment, Reply


@frozen
class Teller:
    """Writes what a model says as Ollama's lines, or as one document."""

    moment: Moment

    def opening(self) -> Members:
        """The members with which every line begins."""
        return {"model": self.moment.model, "created_at": self.moment.created_at}

    def resident(self, members: Members, reason: str) -> bytes:
        """The document for a model that was loaded or unloaded."""
        return msgspec.json.encode(self.opening() | members | {"done": True, "done_reason": reason})

    def ending(self, end: End) -> Members:
        """The members of the last line."""
        took = {
            "load_duration": _nanoseconds(self.moment.waited * 1000),
            "prompt_eval_count": end.prompt_tokens,
            "prompt_eval_duration": _nanoseconds(end.prompt_ms),
            "eval_count": end.answer_tokens,
            "eval_duration": _nanoseconds(end.answer_ms),
        }
        total = sum(took[name] for name in took if name.endswith("_duration"))
        reason = "length" if end.too_long else "stop"
        return {"done": True, "done_reason": reason, "total_duration": total, **took}


def _nanoseconds(milliseconds: float) -> int:
    return round(milliseconds * 1e6)


class Telling(Reply):
    """An answer in words, heard in one form and told in Ollama's."""

    def __init__(self, moment: Moment, listener: Listener) -> None:
        super().__init__()
        self._teller = Teller(moment)
        self._listener = listener

    @abstractmethod
    def said(self, said: Said) -> Members:
        """The members of a line in which the model says this."""

    def whole(self, body: bytes) -> bytes:
        """See `Reply.whole`."""
        said, end = self._listener.whole(body)
        return msgspec.json.encode(self._line(said) | self._teller.ending(end))

    def _told(self, data: bytes) -> Iterator[bytes]:
        for heard in self._listener.heard(data):
            match heard:
                case Said():
                    yield _written(self._line(heard) | {"done": False})
                case End():
                    self.ended = True
                    yield _written(self._line(Said()) | self._teller.ending(heard))
                case Failure():
                    self.ended, self.error = True, heard.message
                    yield _written({"error": heard.message})

    def _line(self, said: Said) -> Members:
        line = self._teller.opening() | self.said(said)
        if said.has_logprobs:
            line["logprobs"] = said.logprobs
        return line


def _written(line: Members) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def tool_calls(calls: Sequence[Call]) -> tuple[list[Members], str]:
    """The calls in Ollama's form, where arguments are an object; and the text of what is none.

    A model's call may be broken, or cut at a limit of tokens. Ollama leaves such words in the text.
    """
    told: list[Members] = []
    broken = ""
    for call in calls:
        try:
            arguments = msgspec.json.decode(call.arguments or "{}", type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            broken += json.dumps({"name": call.name, "arguments": call.arguments})
            continue
        function: Members = {"index": len(told), "name": call.name, "arguments": arguments}
        told.append({"id": call.id, "function": function} if call.id else {"function": function})
    return told, broken
