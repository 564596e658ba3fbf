"""The load: what each client process does, over raw sockets so that the clients stay cheap.

Every function here runs in a process of its own. CLOCK_MONOTONIC is one clock for all processes,
so the plans name moments on it, and the delay of a chunk is receiving time less sending time.
"""

from __future__ import annotations

import gc
import json
import re
import select
import socket
import time
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

Address = tuple[str, int] | str
"""A TCP address, or the path of a Unix socket."""

PATIENCE = 30.0
"""Seconds after which a silent proxy counts as broken."""

KEY = "sk-the-key-of-the-bench"
"""Sent on every way, as clients of OpenAI do; llamasup reads it only if it is guarded."""

_QUESTION = "Please say in a few words what stands between a client and its model, and why. " * 2


class BadAnswer(Exception):
    """A proxy answered something else than the engine said."""


@dataclass(frozen=True)
class Window:
    """The time in which events count, in seconds of the monotonic clock."""

    begin: float
    end: float


@dataclass(frozen=True)
class StreamPlan:
    """Many streams at once: opened gently, one after the other, and counted while all are open."""

    streams: int
    rate: int
    seconds: float
    start: float
    opening: float
    settling: float = 0.3

    @property
    def window(self) -> Window:
        begin = self.start + self.opening + self.settling
        return Window(begin, begin + self.seconds)

    @property
    def chunks(self) -> int:
        """So many that the stream opened first still speaks when the window closes."""
        return round(self.rate * (self.opening + self.settling + self.seconds + 0.1))

    @property
    def deadline(self) -> float:
        return self.window.end + self.opening + PATIENCE

    def openings(self, part: int, parts: int) -> Iterator[float]:
        """When one of several processes opens its part of the streams."""
        for number in range(part, self.streams, parts):
            yield self.start + self.opening * number / self.streams


@dataclass
class StreamTally:
    """What one process saw of its streams; delays and counted are of the window alone."""

    delays: array[int] = field(default_factory=lambda: array("q"))
    missing: int = 0
    disordered: int = 0
    unended: int = 0

    @property
    def lost(self) -> int:
        return self.missing + self.disordered + self.unended


def prepare() -> None:
    """A collection of garbage in a client would look like a delay of the proxy."""
    gc.disable()


def completion(**wishes: object) -> bytes:
    """A chat completion request of about 300 bytes of body; wishes are further fields of it."""
    messages = [{"role": "user", "content": _QUESTION}]
    question = {"model": "canned", "messages": messages, "max_tokens": 256, **wishes}
    body = json.dumps(question, separators=(",", ":")).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def connect(address: Address) -> socket.socket:
    is_path = isinstance(address, str)
    sock = socket.socket(socket.AF_UNIX if is_path else socket.AF_INET)
    sock.settimeout(PATIENCE)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    if not is_path:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def wait_for_data(sock: socket.socket) -> bytes:
    """Reads until the first SSE event of an answer begins: all that was read."""
    received = b""
    while b"data:" not in received:
        received += _receive(sock)
        if b"\r\n" in received:
            _check_status(received)
    return received


def wait_for_end(sock: socket.socket, received: bytes) -> None:
    """Reads a streamed answer, of which this was read, to its proper end."""
    while not received.endswith(b"\r\n0\r\n\r\n"):
        received += _receive(sock)


def one_client(address: Address, seconds: float) -> array[int]:
    """One kept-alive connection, one request after the other: nanoseconds that each took."""
    request, durations = completion(), array("q")
    with connect(address) as sock:
        _ask_once(sock, request)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            before = time.perf_counter_ns()
            _ask_once(sock, request)
            durations.append(time.perf_counter_ns() - before)
    return durations


def busy_clients(address: Address, clients: int, window: Window) -> int:
    """Several kept-alive connections, each always waiting for an answer: answers in the window."""
    request, answered = completion(), 0
    partial = {sock.fileno(): (sock, b"") for sock in (connect(address) for _ in range(clients))}
    poller = select.epoll()
    for sock, _ in partial.values():
        poller.register(sock, select.EPOLLIN)
        sock.sendall(request)
    while (now := time.monotonic()) < window.end:
        for fd, _ in poller.poll(0.1):
            sock, received = partial[fd]
            received += _receive(sock)
            if _is_whole(received):
                received = b""
                answered += now >= window.begin
                sock.sendall(request)
            partial[fd] = (sock, received)
    for sock, _ in partial.values():
        sock.close()
    return answered


def streaming_clients(address: Address, plan: StreamPlan, part: int, parts: int) -> StreamTally:
    """One process's part of the plan's streams, each chunk checked and its delay noted."""
    wish = {"chunks": plan.chunks, "rate": plan.rate}
    request = completion(stream=True, bench=wish)
    unopened = deque(plan.openings(part, parts))
    open_streams: dict[int, _Stream] = {}
    tally, poller = StreamTally(), select.epoll()
    while (unopened or open_streams) and (now := time.monotonic()) < plan.deadline:
        while unopened and unopened[0] <= now:
            unopened.popleft()
            stream = _Stream(connect(address), tally, plan.window)
            stream.sock.sendall(request)
            open_streams[stream.sock.fileno()] = stream
            poller.register(stream.sock, select.EPOLLIN)
        for fd, _ in poller.poll(max(0.001, unopened[0] - now) if unopened else 0.1):
            if not open_streams[fd].read_on():
                open_streams.pop(fd).close(plan.chunks)
    for stream in open_streams.values():
        stream.close(plan.chunks)
    return tally


class _Stream:
    """One SSE answer: takes the chunks apart, as a proxy may have put them together anew."""

    EVENT = re.compile(rb'"seq":(\d{6}),"sent":(\d{16})')

    def __init__(self, sock: socket.socket, tally: StreamTally, window: Window) -> None:
        self.sock = sock
        self.tally = tally
        self.begin, self.end = int(window.begin * 1e9), int(window.end * 1e9)
        self.raw = b""
        self.text = b""
        self.expected = 0
        self.headed = False
        self.complete = False

    def read_on(self) -> bool:
        """Takes what has come; false when the answer is over, one way or the other."""
        try:
            data = self.sock.recv(65536)
        except OSError:
            return False
        now = time.monotonic_ns()
        self.raw += data
        if not self.headed:
            self._take_head()
        if self.headed:
            self._take_chunks()
            self._take_events(now)
        return bool(data) and not self.complete

    def close(self, chunks: int) -> None:
        self.sock.close()
        self.tally.missing += chunks - self.expected
        self.tally.unended += not self.complete

    def _take_head(self) -> None:
        head, end, rest = self.raw.partition(b"\r\n\r\n")
        if end:
            _check_status(head)
            if b"transfer-encoding: chunked" not in head.lower():
                raise BadAnswer(f"the stream is not chunked: {head!r}")
            self.headed, self.raw = True, rest

    def _take_chunks(self) -> None:
        raw, position = self.raw, 0
        while (line_end := raw.find(b"\r\n", position)) > 0:
            size = int(raw[position:line_end], 16)
            chunk_end = line_end + 2 + size
            if len(raw) < chunk_end + 2:
                break
            self.text += raw[line_end + 2 : chunk_end]
            self.complete = size == 0
            position = chunk_end + 2
        self.raw = raw[position:]

    def _take_events(self, now: int) -> None:
        taken = 0
        for event in self.EVENT.finditer(self.text):
            number, sent = int(event[1]), int(event[2])
            if number < self.expected:
                self.tally.disordered += 1
            else:
                self.tally.missing += number - self.expected
                self.expected = number + 1
            if self.begin <= sent < self.end:
                self.tally.delays.append(now - sent)
            taken = event.end()
        self.text = self.text[taken:]


def _ask_once(sock: socket.socket, request: bytes) -> None:
    sock.sendall(request)
    received = _receive(sock)
    while not _is_whole(received):
        received += _receive(sock)


def _receive(sock: socket.socket) -> bytes:
    if data := sock.recv(65536):
        return data
    raise BadAnswer("the connection was closed before the answer was whole")


_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def _is_whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    _check_status(received)
    length = _LENGTH.search(head)
    if not length:
        raise BadAnswer(f"the answer names no length: {head!r}")
    return len(body) >= int(length[1])


def _check_status(received: bytes) -> None:
    if not received.startswith(b"HTTP/1.1 200"):
        raise BadAnswer(received[:500].decode(errors="replace"))
