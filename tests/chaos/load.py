"""Clients that check every byte of a reciting model's answer, and judge it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from enum import Enum
from itertools import accumulate
from random import Random
from typing import Any

import h11
import trio
from attrs import field, frozen

from llamasup.config.addresses import TcpAddress
from tests.harness import counted

LONGEST_CHAIN = 3000
PATIENCE = 60.0
"""After so long an answer that has not ended hangs."""

_FIRST_PIECE = 260
"""The id of " 0": the reciting model's special tokens and bytes come before."""

_BOUNDARIES = frozenset(accumulate(len(f" {number}") for number in range(LONGEST_CHAIN))) | {0}
_RECITAL = counted(LONGEST_CHAIN)


class Verdict(Enum):
    """What became of a request."""

    RIGHT = "answered right"
    ERROR = "answered with a clear error"
    CUT = "cut, visibly"
    LEFT = "left by the client"
    BROKEN = "lost, by a connection that broke"
    LOST = "lost"
    WRONG = "wrong bytes"


@frozen
class Outcome:
    """The verdict, why, and whether the client had seen the beginning of an answer before."""

    verdict: Verdict
    why: str = ""
    began: bool = False

    def __str__(self) -> str:
        return f"{self.verdict.value}{', after it began' if self.began else ''}: {self.why}"


class Unsound(Exception):
    """An answer that no client should ever get."""

    def __init__(self, verdict: Verdict, why: str) -> None:
        super().__init__(why)
        self.verdict = verdict


@frozen
class Kind:
    """One way to ask: where, with what, and how its answer is read."""

    path: str
    body: Callable[[str, int], Mapping[str, object]]
    piece: Callable[[Any], str]
    """What a stream's event, or a whole answer, says."""

    is_last: Callable[[Any], bool] = field(default=lambda _: True)
    """Is this event of a stream its proper end? (Only `[DONE]` is no JSON; it comes as text.)"""

    streams: bool = False


def _messages(prompt: str, tokens: int, stream: bool) -> dict[str, object]:
    messages = [{"role": "user", "content": prompt}]
    return {"messages": messages, "max_tokens": tokens, "stream": stream}


def _chat_delta(event: Any) -> str:
    return "" if event == "[DONE]" else event["choices"][0]["delta"].get("content") or ""


def _tokens_as_text(answer: Any) -> str:
    """The pieces that the token ids stand for."""
    return "".join(f" {token - _FIRST_PIECE}" for token in answer["tokens"])


KINDS = {
    "chat stream": Kind(
        path="/v1/chat/completions",
        body=lambda prompt, tokens: _messages(prompt, tokens, True),
        piece=_chat_delta,
        is_last=lambda event: event == "[DONE]",
        streams=True,
    ),
    "messages stream": Kind(
        path="/v1/messages",
        body=lambda prompt, tokens: _messages(prompt, tokens, True),
        piece=lambda event: event.get("delta", {}).get("text", ""),
        is_last=lambda event: event["type"] == "message_stop",
        streams=True,
    ),
    "native stream": Kind(
        path="/completion",
        body=lambda prompt, tokens: {"prompt": prompt, "n_predict": tokens, "stream": True},
        piece=lambda event: event["content"],
        is_last=lambda event: event["stop"],
        streams=True,
    ),
    "chat": Kind(
        path="/v1/chat/completions",
        body=lambda prompt, tokens: _messages(prompt, tokens, False),
        piece=lambda answer: answer["choices"][0]["message"]["content"],
    ),
    "native": Kind(
        path="/completion",
        body=lambda prompt, tokens: {"prompt": prompt, "n_predict": tokens},
        piece=lambda answer: answer["content"],
    ),
    "pinged stream": Kind(
        path="/v1/chat/completions",
        body=lambda prompt, tokens: _messages(prompt, tokens, True) | {"sse_ping_interval": 1},
        piece=_chat_delta,
        is_last=lambda event: event == "[DONE]",
        streams=True,
    ),
    "tokenize": Kind(
        path="/tokenize",
        body=lambda _, tokens: {"content": counted(tokens)},
        piece=_tokens_as_text,
    ),
}
POISON = Kind(
    path="/completion",
    body=lambda prompt, tokens: {"prompt": prompt, "n_predict": tokens, "grammar": _ENDLESS},
    piece=lambda answer: answer["content"],
)
"""No engine survives it: it recurses into the brackets until its stack ends."""

_ENDLESS = "root ::= " + "(" * 20_000

STREAMS = [kind for kind in KINDS.values() if kind.streams]
WHOLES = [kind for kind in KINDS.values() if not kind.streams]


def long_prompt(chance: Random) -> str:
    """A prompt whose prefill takes some tenths of a second, and that no cache knows."""
    return f"{chance.getrandbits(64):x}" + "xy" * 5000


class Request:
    """One request on a connection of its own (or a given one), and what has come of its answer."""

    def __init__(
        self,
        address: TcpAddress,
        model: str,
        kind: Kind,
        tokens: int,
        prompt: str = "count",
        *,
        connection: trio.abc.Stream | None = None,
    ) -> None:
        self.model = model
        self.tokens_seen = 0
        self.outcome: Outcome | None = None
        self._address = address
        self._connection = connection
        self._kind = kind
        self._tokens = tokens
        self._content = json.dumps({"model": model, **kind.body(prompt, tokens)}).encode()
        self._answer: _Answer | None = None
        self._news = trio.lowlevel.ParkingLot()

    async def run(self, leave_after: int | None = None) -> Outcome:
        """Ask, read to the end, judge; or leave after so many tokens. Never raises for a fault."""
        outcome = Outcome(Verdict.LOST, f"no end within {PATIENCE:g} s")
        with trio.move_on_after(PATIENCE):
            outcome = await self._suffered(leave_after)
        self.outcome = outcome
        self._news.unpark_all()
        return outcome

    async def _suffered(self, leave_after: int | None) -> Outcome:
        try:
            return await self._converse(leave_after)
        except Unsound as fault:
            return Outcome(fault.verdict, str(fault), self.began)
        except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError) as error:
            words = f"the connection broke: {error or type(error).__name__}"
            # A stream is owed an error event; a document that breaks off speaks for itself.
            visible = self._answer is not None and not self._kind.streams
            return Outcome(Verdict.CUT if visible else Verdict.BROKEN, words, self.began)

    @property
    def began(self) -> bool:
        """The client has seen the beginning of a good answer: of a stream, a token."""
        return self._answer is not None and self._answer.began

    async def reached(self, tokens: int) -> None:
        """Return when so many tokens have come, or all is over."""
        while self.tokens_seen < tokens and self.outcome is None:
            await self._news.park()

    async def pinged(self) -> None:
        """Return when a comment has come instead of tokens, or all is over."""
        while self.outcome is None and not (self._answer and self._answer.comments):
            await self._news.park()

    async def _converse(self, leave_after: int | None) -> Outcome:
        protocol = h11.Connection(h11.CLIENT)
        async with self._connection or await connected(self._address) as stream:
            await stream.send_all(self._said(protocol))
            while True:
                event = protocol.next_event()
                if event is h11.NEED_DATA:
                    protocol.receive_data(bytes(await stream.receive_some()))
                elif isinstance(event, h11.Response):
                    self._answer = self._expected(event)
                elif isinstance(event, h11.Data):
                    self._take(bytes(event.data))
                    if leave_after is not None and self.tokens_seen >= leave_after:
                        return Outcome(Verdict.LEFT, began=True)
                elif isinstance(event, h11.EndOfMessage):
                    assert self._answer is not None
                    return self._answer.judged()
                elif isinstance(event, h11.ConnectionClosed):
                    raise Unsound(Verdict.BROKEN, "the connection was closed without an answer")

    def _said(self, protocol: h11.Connection) -> bytes:
        headers = [("Host", "chaos"), ("Content-Length", str(len(self._content)))]
        head = h11.Request(method="POST", target=self._kind.path, headers=headers)
        parts = [protocol.send(head), protocol.send(h11.Data(data=self._content))]
        return b"".join(part or b"" for part in [*parts, protocol.send(h11.EndOfMessage())])

    def _expected(self, head: h11.Response) -> _Answer:
        if head.status_code != 200:
            return _Refusal(head.status_code)
        return (
            _Stream(self._kind, self._tokens)
            if self._kind.streams
            else _Whole(self._kind, self._tokens)
        )

    def _take(self, data: bytes) -> None:
        assert self._answer is not None
        self.tokens_seen = self._answer.feed(data)
        self._news.unpark_all()


async def connected(address: TcpAddress) -> trio.SocketStream:
    """A new connection."""
    return await trio.open_tcp_stream(address.host, address.port)


class _Answer(ABC):
    """An answer that grows, and is judged at its proper end. Raises Unsound."""

    status = 200
    comments = 0

    @property
    def began(self) -> bool:
        """Can the client have made use of any of it?"""
        return self.status == 200

    @abstractmethod
    def feed(self, data: bytes) -> int:
        """Take what came; returns how many tokens have come altogether."""

    @abstractmethod
    def judged(self) -> Outcome:
        """The framing says that this was all."""


class _Refusal(_Answer):
    """Anything but 200: an error document, and it had better be a clear one."""

    def __init__(self, status: int) -> None:
        self.status = status
        self._body = b""

    def feed(self, data: bytes) -> int:
        self._body += data
        return 0

    def judged(self) -> Outcome:
        try:
            return Outcome(Verdict.ERROR, f"{self.status} {_clear(json.loads(self._body))}")
        except (ValueError, KeyError, TypeError):
            raise Unsound(
                Verdict.LOST, f"{self.status} with an unclear error: {self._body[:200]!r}"
            ) from None


class _Whole(_Answer):
    """A JSON document that says everything at once."""

    def __init__(self, kind: Kind, tokens: int) -> None:
        self._kind = kind
        self._tokens = tokens
        self._body = b""

    def feed(self, data: bytes) -> int:
        self._body += data
        return 0

    def judged(self) -> Outcome:
        try:
            text = self._kind.piece(json.loads(self._body))
        except (ValueError, KeyError, TypeError) as error:
            raise Unsound(Verdict.WRONG, f"not an answer: {error!r}") from None
        if text != counted(self._tokens):
            raise Unsound(Verdict.WRONG, f"said {text[-80:]!r} instead of {self._tokens} tokens")
        return Outcome(Verdict.RIGHT, began=True)


class _Stream(_Answer):
    """Server-sent events, each checked as it comes."""

    def __init__(self, kind: Kind, tokens: int) -> None:
        self._kind = kind
        self._all = counted(tokens)
        self._unread = b""
        self._at = 0
        self._tokens_seen = 0
        self._ended = False
        self._error = ""

    @property
    def began(self) -> bool:
        return self._tokens_seen > 0

    def feed(self, data: bytes) -> int:
        *events, self._unread = (self._unread + data).split(b"\n\n")
        for event in events:
            self._heed(event)
        return self._tokens_seen

    def _heed(self, event: bytes) -> None:
        data = next((line for line in event.split(b"\n") if line.startswith(b"data:")), None)
        if data is None:
            self.comments += 1
            return
        if self._ended or self._error:
            raise Unsound(Verdict.WRONG, f"an event after the last one: {event[:100]!r}")
        text = data.removeprefix(b"data:").strip().decode()
        message = text if text == "[DONE]" else json.loads(text)
        if isinstance(message, dict) and ("error" in message or message.get("type") == "error"):
            self._error = _clear(message)
        else:
            self._add(self._kind.piece(message))
            self._ended = self._kind.is_last(message)

    def _add(self, piece: str) -> None:
        if not piece:
            return
        if not self._all.startswith(piece, self._at):
            expected = self._all[self._at : self._at + len(piece)]
            raise Unsound(Verdict.WRONG, f"said {piece!r} instead of {expected!r}")
        self._at += len(piece)
        self._tokens_seen += 1

    def judged(self) -> Outcome:
        if self._error:
            if self._at not in _BOUNDARIES:
                raise Unsound(Verdict.WRONG, "the error came within a token")
            return Outcome(Verdict.ERROR, self._error, self.began)
        if not self._ended or self._unread:
            raise Unsound(Verdict.LOST, "a cut stream that looks like a clean end")
        if self._at != len(self._all):
            raise Unsound(Verdict.WRONG, f"ended after {self._tokens_seen} tokens")
        return Outcome(Verdict.RIGHT, began=True)


def _clear(document: Any) -> str:
    """What an error document says. Raises what a document of another form makes of it."""
    error = document["error"] if isinstance(document["error"], dict) else document
    if error["message"] == "Loading model":
        raise ValueError("a child that still loads is no client's affair")
    if not error["message"]:
        raise ValueError("an error without words")
    return f"{error.get('code', error['type'])}: {error['message']}"
