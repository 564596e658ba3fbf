"""The canned engine: llama-server's command line, log lines and HTTP, with answers made beforehand.

One thread, one epoll, no imports beyond the standard library, so that it is never the bottleneck.
A request asks for its answer in the body: `"stream":true` with `"bench":{"chunks":400,"rate":200}`
gives 400 SSE events at 200 a second, each in its own HTTP chunk and its own write, each carrying
its number and the time of its sending; anything else gives one JSON answer.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterator
from typing import NoReturn

HELP = """canned engine: the flags of llama-server, those it does not know are ignored
--host HOST              ip address, or UNIX socket paths ending in .sock; may be repeated
--port PORT              port for the ip addresses
-m, --model FNAME        named in the log, never opened
-np, --parallel N        named in the log, unlimited in truth
-c, --ctx-size N         ignored
--threads-http N         ignored
--cache-ram N            ignored
"""

EVENT_BYTES = 250


def _json_answer() -> bytes:
    content = "It answers with these same words, whatever the question may have been. " * 4
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 42, "completion_tokens": 64, "total_tokens": 106}
    answer = {"id": "chatcmpl-bench", "object": "chat.completion", "created": 1760000000}
    answer |= {"model": "canned", "choices": [choice], "usage": usage}
    return json.dumps(answer).encode()


def _response(status: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def _event_template() -> bytes:
    """One chunk with one event; the number and the time of sending are still to be filled in."""
    start = b'data: {"bench":{"seq":%06d,"sent":%016d},"id":"chatcmpl-bench","choices":[{"index":0,'
    end = (
        b'"delta":{"content":" word"},"finish_reason":null}],"object":"chat.completion.chunk"}\n\n'
    )
    padding = EVENT_BYTES - len((start + b'"pad":"",' + end) % (0, 0))
    event = start + b'"pad":"' + b"x" * padding + b'",' + end
    return b"%x\r\n" % EVENT_BYTES + event + b"\r\n"


HEALTHY = _response("200 OK", b'{"status":"ok"}')
NOT_FOUND = _response("404 Not Found", b'{"error":{"code":404,"message":"File Not Found"}}')
ANSWER = _response("200 OK", _json_answer())
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
EVENT = _event_template()
STREAM_END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Stream:
    """What is left to say on one connection, one event every `period` milliseconds."""

    def __init__(self, connection: Connection, chunks: int, rate: int) -> None:
        self.connection = connection
        self.chunks = chunks
        self.period = 1000 // rate
        self.sent = 0

    def say(self) -> bool:
        """Sends the next event; false when it was the last, or nobody listens any more."""
        if self.connection.closed:
            return False
        self.connection.send(EVENT % (self.sent, time.monotonic_ns()))
        self.sent += 1
        if self.sent < self.chunks:
            return True
        self.connection.send(STREAM_END, last=True)  # llama-server closes after each stream
        return False


class Wheel:
    """All streams by the millisecond in which they are due: no search, however many there are."""

    SPAN = 1024

    def __init__(self) -> None:
        self.slots: list[list[Stream]] = [[] for _ in range(self.SPAN)]
        self.now = 0
        self.waiting = 0

    def add(self, stream: Stream) -> None:
        self.slots[(self.now + stream.period) % self.SPAN].append(stream)
        self.waiting += 1

    def turn_to(self, millisecond: int) -> Iterator[Stream]:
        if not self.waiting:
            self.now = millisecond
        while self.now < millisecond:
            self.now += 1
            due, self.slots[self.now % self.SPAN] = self.slots[self.now % self.SPAN], []
            self.waiting -= len(due)
            yield from due


class Connection:
    """One client: bytes in until a request is whole, bytes out as fast as they are taken."""

    def __init__(self, sock: socket.socket, poller: select.epoll) -> None:
        self.sock = sock
        self.poller = poller
        self.incoming = b""
        self.unsent = b""
        self.stuck = False
        self.ending = False
        self.closed = False

    def receive(self) -> Iterator[tuple[bytes, bytes]]:
        """Yields each whole request, as head and body."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        self.incoming += data
        while not self.closed and (end := self.incoming.find(b"\r\n\r\n")) >= 0:
            head = self.incoming[:end].lower()
            _, _, length = head.partition(b"\r\ncontent-length:")
            whole = end + 4 + int(length.partition(b"\r\n")[0] or 0)
            if len(self.incoming) < whole:
                return
            body, self.incoming = self.incoming[end + 4 : whole], self.incoming[whole:]
            yield head, body

    def send(self, data: bytes, *, last: bool = False) -> None:
        self.ending = self.ending or last
        self.unsent += data
        if not self.stuck:
            self.flush()

    def flush(self) -> None:
        try:
            sent = self.sock.send(self.unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self.unsent = self.unsent[sent:]
        if self.ending and not self.unsent:
            self.close()
        elif self.stuck != bool(self.unsent):
            self.stuck = bool(self.unsent)
            self.poller.modify(self.sock, select.EPOLLIN | (self.stuck and select.EPOLLOUT))

    def close(self) -> None:
        self.closed = True
        self.sock.close()


class Engine:
    """The event loop: connections on one side, paced streams on the other."""

    def __init__(self) -> None:
        self.poller = select.epoll()
        self.listeners: dict[int, socket.socket] = {}
        self.connections: dict[int, Connection] = {}
        self.wheel = Wheel()

    def listen(self, host: str, port: int) -> str:
        """Binds, and names the address as llama-server does."""
        is_path = host.endswith(".sock")
        listener = socket.socket(socket.AF_UNIX if is_path else socket.AF_INET)
        if is_path:
            listener.bind(host)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        listener.listen(4096)
        listener.setblocking(False)
        self.listeners[listener.fileno()] = listener
        self.poller.register(listener, select.EPOLLIN)
        return f"unix://{host}" if is_path else f"http://{host}:{port}"

    def end_with_stdin(self) -> None:
        """Exit when the supervisor is gone, which closes the pipe that it held open."""
        mode = os.fstat(0).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            self.poller.register(0, select.EPOLLIN)

    def run(self) -> NoReturn:
        while True:
            # A millisecond is epoll's own grain, and the wheel's.
            for fd, events in self.poller.poll(0.001 if self.wheel.waiting else None):
                if fd in self.listeners:
                    self.accept(self.listeners[fd])
                elif fd == 0:
                    _exit_if_over(fd)
                else:
                    self.serve(self.connections[fd], events)
            for stream in self.wheel.turn_to(time.monotonic_ns() // 1_000_000):
                if stream.say():
                    self.wheel.add(stream)

    def accept(self, listener: socket.socket) -> None:
        sock, _ = listener.accept()
        sock.setblocking(False)
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections[sock.fileno()] = Connection(sock, self.poller)
        self.poller.register(sock, select.EPOLLIN)

    def serve(self, connection: Connection, events: int) -> None:
        if events & select.EPOLLOUT and not connection.closed:
            connection.flush()
        if not connection.closed and events & ~select.EPOLLOUT:
            for head, body in connection.receive():
                self.answer(connection, head, body)

    def answer(self, connection: Connection, head: bytes, body: bytes) -> None:
        last = b"\r\nconnection: close" in head
        if head.startswith(b"get "):
            healthy = head.startswith((b"get /health", b"get /v1/health"))
            connection.send(HEALTHY if healthy else NOT_FOUND, last=last)
        elif b'"stream":true' in body:
            wish = json.loads(body)["bench"]
            stream = Stream(connection, wish["chunks"], wish["rate"])
            connection.send(STREAM_HEAD)
            if stream.say():
                self.wheel.add(stream)
        else:
            connection.send(ANSWER, last=last)


def _exit_if_over(stdin: int) -> None:
    if not os.read(stdin, 4096):
        os._exit(0)


def _values(arguments: list[str], *flags: str) -> list[str]:
    """The values of a flag; argparse would take a third of our start, and refuse strange flags."""
    return [value for flag, value in itertools.pairwise(arguments) if flag in flags]


def _log(line: str) -> None:
    passed = time.process_time_ns() // 1000
    milliseconds, microseconds = divmod(passed, 1000)
    stamp = f"0.00.{milliseconds:03d}.{microseconds:03d}"
    sys.stderr.write(f"{stamp} I srv  {line}\n")
    sys.stderr.flush()


def main(arguments: list[str]) -> None:
    if "--help" in arguments or "-h" in arguments:
        print(HELP, end="")
    elif "--version" in arguments:
        print("version: 0 (canned)", file=sys.stderr)
    else:
        serve(arguments)


def serve(arguments: list[str]) -> NoReturn:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    model = (_values(arguments, "-m", "--model") or ["canned"])[-1]
    slots = (_values(arguments, "-np", "--parallel") or ["4"])[-1]
    port = int((_values(arguments, "--port") or ["8080"])[-1])
    engine = Engine()
    _log("llama_server: initializing ...")
    _log(f"  load_model: loading model '{model}'")
    addresses = [engine.listen(host, port) for host in _values(arguments, "--host")]
    _log(f"  load_model: initializing, n_slots = {slots}, n_ctx_slot = 4096, kv_unified = 'false'")
    _log("llama_server: model loaded")
    for address in addresses:
        _log(f"llama_server: listening on {address}")
    engine.end_with_stdin()
    engine.run()


if __name__ == "__main__":
    main(sys.argv[1:])
