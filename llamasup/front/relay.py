"""Sends one request to an upstream, and its answer to the client, byte by byte as it comes.

Every request has its own connection to the upstream: a kept-alive one would occupy a thread of
llama-server, and closing the connection is how a request is cancelled, whatever state it is in.
The answer's content is passed on as it comes, but framed by us (`rendering`), so that the client
never takes a cut answer for a whole one. A stream is held back until its first word: until then,
another engine can still answer.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext

from attrs import evolve

from llamasup import threads
from llamasup.apis.dialects import dialect_at
from llamasup.engine.error_messages import message_of_reply, messages_in_events
from llamasup.errors import (
    ChildLost,
    ClientError,
    EngineFailed,
    LlamasupError,
    NotAnsweredHere,
    Shortage,
    TooLargeForEngine,
)
from llamasup.front.answer import Answer
from llamasup.front.rendering import Rendering, StreamRendering
from llamasup.front.rooms import Part
from llamasup.front.stream_events import Overture
from llamasup.front.translated_answer import TranslatedStream, TranslatedWhole
from llamasup.http.connection import Connection
from llamasup.http.framing import Chunked, FramingError, UntilClose
from llamasup.http.heads import END_OF_HEAD
from llamasup.http.reply_heads import LONGEST_HEAD, ReplyHead, read_head
from llamasup.http.requests import Request, Stored
from llamasup.http.wire import AT_ONCE, Wire
from llamasup.upstream import Upstream, Verdict

log = logging.getLogger(__name__)

_SMALL_BODY = 64 << 10
_LONGEST_VERDICT = 64 << 10
_MOST_INTERIM_REPLIES = 32
_AT_ONCE_IN_CHUNKS = 8 << 10
"""Bytes that are received at once in chunks. Each chunk may be of a single byte, and then so many
of them take 3 ms."""

_ASK_AGAIN = "; ask again"
_LONGEST_TRANSLATED = 64 << 20


class RanOutOfMemory(ChildLost):
    """The upstream answered that memory ran out. The client has not seen this answer."""


class ReplyCut(Exception):
    """The upstream broke off after the client had seen the beginning of the answer."""


async def relay(
    connection: Connection,
    request: Request,
    upstream: Upstream,
    target: bytes,
    answer: Answer,
) -> None:
    """Send `request` to `upstream` as `target`, and the answer to the client.

    As long as the client has seen no word of the answer, raises ChildLost if the upstream fails,
    RanOutOfMemory if it says that memory ran out, and another LlamasupError if its answer is
    unusable or does not fit what the client has seen. After the first word, raises ReplyCut if the
    answer breaks off, or EngineFailed if it cannot be told in the client's API. Raises ClientLeft
    when the client is gone. If this is cancelled, the upstream's connection is closed at once.
    However this ends, `answer.seen` is right.
    """
    with await _connected(upstream) as wire:
        sent = await upstream.dressed(request)
        await _send_request(wire, upstream.head_for(sent, target), sent.body)
        wire.at_once = _AT_ONCE_IN_CHUNKS
        head, data = await _receive_head(wire)
        if not head.chunked:
            wire.at_once = AT_ONCE
        if head.status >= 400:
            head, data = await _read_verdict(wire, upstream, head, request, data)
        if not answer.suits(head):
            raise _refusal(head, request, data)
        rendering = _rendering(head, request, answer, upstream)
        if isinstance(rendering, TranslatedWhole):
            await _tell_whole(connection, upstream, answer, wire, rendering, data)
            return
        if isinstance(rendering, StreamRendering):
            first = await _first_word(connection, upstream, answer, wire, rendering, data)
        else:
            first = _content_of(data, rendering)
        await _pass_on(connection, upstream, answer, wire, rendering, first)


async def _connected(upstream: Upstream) -> Wire:
    try:
        return await upstream.connect()
    except OSError as error:
        raise ChildLost(f"{upstream} cannot be reached: {error.strerror}{_ASK_AGAIN}") from error


async def _send_request(wire: Wire, head: bytes, body: bytes | bytearray | Stored) -> None:
    """Send all, or as much as the upstream takes: it may refuse a request without reading it."""
    try:
        if not isinstance(body, bytes | bytearray):
            await wire.send(head)
            await _send_stored(wire, body)
        elif len(body) <= _SMALL_BODY:
            await wire.send(head + body)
        else:
            await wire.send(head)
            await wire.send(body)
    except OSError:
        return


async def _send_stored(wire: Wire, body: Stored) -> None:
    at = 0
    while at < len(body):
        piece = await body.read(at)
        await wire.send(piece)
        at += len(piece)


async def _receive(wire: Wire) -> bytes:
    """The next bytes, before anything was passed on. Raises ChildLost if nothing comes."""
    try:
        data = await wire.receive()
    except OSError as error:
        raise ChildLost(f"the engine broke off: {error.strerror}{_ASK_AGAIN}") from error
    if not data:
        raise ChildLost(f"the engine closed the connection without an answer{_ASK_AGAIN}")
    return data


async def _receive_head(wire: Wire) -> tuple[ReplyHead, bytes]:
    """The reply's head, and the part of its body that came with it. Interim replies are skipped."""
    data = bytearray()
    for _ in range(_MOST_INTERIM_REPLIES):
        seen = 0
        while (end := data.find(END_OF_HEAD, seen)) < 0 and len(data) <= LONGEST_HEAD:
            seen = max(0, len(data) - len(END_OF_HEAD))
            data += await _receive(wire)
        if not 0 <= end <= LONGEST_HEAD:
            raise EngineFailed(
                f"the engine's answer cannot be read: its head has no end{_ASK_AGAIN}"
            )
        split = end + len(END_OF_HEAD)
        head = read_head(bytes(data[:split]))
        del data[:split]
        if head.status >= 200:
            return head, bytes(data)
        if head.status == 101:
            raise EngineFailed(f"the engine changes the protocol unasked{_ASK_AGAIN}")
    raise EngineFailed(f"the engine sends interim replies without end{_ASK_AGAIN}")


async def _read_verdict(
    wire: Wire, upstream: Upstream, head: ReplyHead, request: Request, data: bytes
) -> tuple[ReplyHead, bytes]:
    """Read an error completely (up to a limit) before the client sees it: a retry may be better."""
    body = head.framing(request)
    try:
        body.feed(data)
        while not body.done and len(data) < _LONGEST_VERDICT:
            if not (more := await wire.receive()):
                break
            body.feed(more)
            data += more
    except FramingError as error:
        raise _badly_framed(error) from error
    except OSError as error:
        raise ChildLost(f"the engine broke off: {error.strerror}{_ASK_AGAIN}") from error
    content = _content(head, request, data)
    _judge(upstream, len(request.body), head.status, message_of_reply(content))
    dialect = dialect_at(request.target.partition(b"?")[0])
    if body.done and (corrected := dialect.corrected(head.status, content)):
        return evolve(head, length=len(corrected), chunked=False), corrected
    return head, data


def _judge(upstream: Upstream, request_size: int, status: int, message: str) -> None:
    """Raise the error that this message means, unless it concerns only the client."""
    match upstream.judge(status, message, request_size):
        case Verdict.OUT_OF_MEMORY:
            raise RanOutOfMemory(message)
        case Verdict.NOT_HERE:
            raise NotAnsweredHere(f"{upstream} does not answer now: {status} {message}")
        case Verdict.TOO_LARGE:
            raise TooLargeForEngine(
                f"the engine has no memory for a body of {request_size >> 20} MiB:"
                " send less at once, or in parts"
            )


def _content(head: ReplyHead, request: Request, data: bytes) -> bytes:
    """The content of an error reply, without its framing."""
    body = head.framing(request)
    if isinstance(body, Chunked):
        body.payload = bytearray()
        body.feed(data)
        return bytes(body.payload)
    return data[: body.feed(data)]


def _refusal(head: ReplyHead, request: Request, data: bytes) -> LlamasupError:
    """The engine's answer as an error of ours, for a client that already has events of a stream."""
    if head.status < 400:
        return EngineFailed(f"the engine did not answer with a stream{_ASK_AGAIN}")
    words = (
        message_of_reply(_content(head, request, data))
        or f"the engine answered with status {head.status}"
    )
    return ClientError(words) if head.status < 500 else EngineFailed(words)


def _rendering(head: ReplyHead, request: Request, answer: Answer, upstream: Upstream) -> Rendering:
    is_stream = head.is_event_stream and not head.framing(request).done
    if head.status >= 400:
        return Rendering(head, request, answer)
    if answer.reply is not None:
        if is_stream:
            return TranslatedStream(head, request, answer, upstream, answer.reply)
        return TranslatedWhole(head, request, answer, answer.reply)
    if is_stream:
        return StreamRendering(head, request, answer, upstream)
    return Rendering(head, request, answer)


def _content_of(data: bytes, rendering: Rendering) -> bytes:
    """The content in `data`, before anything was passed on."""
    try:
        return rendering.content(data)
    except FramingError as error:
        raise _badly_framed(error) from error


def _badly_framed(error: FramingError) -> EngineFailed:
    return EngineFailed(f"the engine's answer is badly framed: {error}{_ASK_AGAIN}")


async def _first_word(
    connection: Connection,
    upstream: Upstream,
    answer: Answer,
    wire: Wire,
    stream: StreamRendering,
    data: bytes,
) -> bytes:
    """The events with which the answer begins. Earlier events, which only pass the time, are sent
    to the client at once.

    llama-server sends the head before it has read the prompt, and pings while it reads: neither
    means that an answer will come.
    """
    overture = Overture()
    while True:
        passing = overture.feed(_content_of(data, stream))
        if overture.first is not None or stream.body.done or stream.is_within_event:
            for message in messages_in_events(overture.first or b""):
                _judge(upstream, stream.request_size, 500, message)
            return passing + overture.kept
        if passing and (rest := connection.send_now(stream.before_answer(passing))):
            await _send_slowly(connection, upstream, answer, rest)
        if not stream.may_keep(overture.kept):
            return overture.kept
        data = await _receive(wire)


async def _pass_on(
    connection: Connection,
    upstream: Upstream,
    answer: Answer,
    wire: Wire,
    rendering: Rendering,
    first: bytes,
) -> None:
    upstream.progressed()  # from here on, no other upstream could answer
    begun = rendering.begun(first)
    try:
        if rest := connection.send_now(begun):
            await _send_slowly(connection, upstream, answer, rest)
        await _pass_body(connection, upstream, answer, wire, rendering)
    finally:
        rendering.note_seen()
        if rendering.surplus:
            log.warning("an engine sent %d bytes after its reply's end", rendering.surplus)


async def _tell_whole(
    connection: Connection,
    upstream: Upstream,
    answer: Answer,
    wire: Wire,
    rendering: TranslatedWhole,
    data: bytes,
) -> None:
    """Wait for the whole answer, and send it in the client's API."""
    body = bytearray(_content_of(data, rendering))
    held = Part(answer.hold)
    while not rendering.body.done:
        if len(body) > _LONGEST_TRANSLATED:
            raise EngineFailed("the engine's answer is too long to be translated")
        try:
            data = await wire.receive()
        except OSError as error:
            raise ChildLost(f"the engine broke off its answer: {error.strerror}") from error
        if data:
            body += _content_of(data, rendering)
            held.grow(len(body))
        elif isinstance(rendering.body, UntilClose) and await upstream.survived():
            break
        else:
            raise ChildLost("the engine closed the connection within its answer")
    told = await _told(rendering, bytes(body))
    try:
        if rest := connection.send_now(rendering.answered(told)):
            await _send_slowly(connection, upstream, answer, rest)
    finally:
        rendering.note_seen()


async def _told(rendering: TranslatedWhole, body: bytes) -> bytes:
    if len(body) <= _SMALL_BODY:
        return rendering.told(body)
    try:
        return await threads.run(rendering.told, body)
    except OSError as error:
        raise Shortage(f"the answer cannot be translated now: {error.strerror}") from error


async def _pass_body(
    connection: Connection, upstream: Upstream, answer: Answer, wire: Wire, rendering: Rendering
) -> None:
    body = rendering.body
    try:
        while not body.done:
            data = await wire.receive()
            if not data:
                break
            part = rendering.passed(data)
            if part and (rest := connection.send_now(part)):
                await _send_slowly(connection, upstream, answer, rest)
    except (FramingError, OSError) as error:
        raise ReplyCut(f"the engine broke off its answer: {error}") from error
    if body.done:
        return
    if not (isinstance(body, UntilClose) and await upstream.survived()):
        raise ReplyCut("the engine closed the connection within its answer")
    await connection.send(rendering.ending())


async def _send_slowly(
    connection: Connection, upstream: Upstream, answer: Answer, rest: memoryview
) -> None:
    """Send what the client has not taken at once."""
    counting = answer.hold.counting(len(rest)) if answer.hold else nullcontext()
    with upstream.blocked_by_client(), counting:
        await connection.send_slowly(rest)
