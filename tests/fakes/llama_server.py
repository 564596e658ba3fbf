#!/usr/bin/env python3
"""A llama-server that does on demand what the real one does only on bad days.

It takes llama-server's command line as far as llamasup writes it, ignores what it does not know,
and follows the `--fake-…` options: the fields of `Script`. What happens to it, it appends to the
journal, one JSON object a line: `event`, `pid`, `at` (time.monotonic) and details. The events:

    started (argv, environment)   grandchild (grandchild)   loaded   ready   request (method,
    target, headers, body, busy)   answered (sent)   client closed (sent)   died (sent, how)
    signal (name, ignored)   stdin closed   exited (status)   fault (traceback: a bug of its own)

Only the standard library, so that any Python can run it as a child.
"""

import json
import math
import os
import select
import signal
import socket
import socketserver
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from http.server import BaseHTTPRequestHandler
from typing import NoReturn

# Broken into lines where llama-server breaks it.
HELP = """\
-m,    --model FNAME                    model path
-mm,   --mmproj FILE                    path to a multimodal projector file
-c,    --ctx-size N                     size of the prompt context (default: 0)
-cram, --cache-ram N                    set the maximum cache size in MiB (default: 8192)
-np,   --parallel N                     number of server slots (default: -1, -1 = auto)
--host HOST                             IP addresses to listen on, or UNIX socket paths
                                        ending in .sock; (default: 127.0.0.1)
--port PORT                             port to listen (default: 8080)
--threads-http N                        number of threads used to process HTTP requests
--slots, --no-slots                     expose slots monitoring endpoint (default: enabled)
--models-dir PATH                       directory containing models for the router server
"""
VERSION = "version: 0.7.0 (build 11669, commit Fake)\nbuilt with nothing for nowhere\n"

NEVER = sys.maxsize
UNASKED_TOKENS = 100


@dataclass
class Script:
    """What to be and what to do. A field is an option: `fake_first_byte_delay` is given as
    `--fake-first-byte-delay 0.5`, a bool without a value."""

    model: str = "fake.gguf"
    alias: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    parallel: int = 1
    ctx_size: int = 4096

    fake_journal: str = os.devnull
    fake_scripted_lives: int = NEVER  # so many starts, by the journal; then be well
    fake_dialect: str = "current"  # current, old, jsonl, silent
    fake_flood: int = 0  # log lines while loading, and again at each request

    fake_load_seconds: float = 0.0
    fake_load_line_every: float = math.inf  # seconds between log lines while loading
    fake_fail_load: str = ""  # log this, then exit as after a failed load; "a|b": b from the 2nd on
    fake_fail_above_ctx: int = -1  # fail so only with a larger context
    fake_fail_beside: str = ""  # fail so only while a model of this name lives
    fake_never_ready: bool = False
    fake_exit_after_ready: float = math.inf
    fake_exit_status: int = 1
    fake_ignore_term: bool = False
    fake_ignore_stdin: bool = False
    fake_grandchild_holds_pipes: bool = False

    fake_words: str = ""  # say these, a token each, instead of counting
    fake_echo: bool = False  # answer with the request as JSON
    fake_raw: bool = False  # answer with the bytes in the request's "raw", as they stand, and close
    fake_error: str = ""  # answer with this error, like "500 decode() failed: std::bad_alloc"
    fake_error_if: str = ""  # …only to requests that hold this text
    fake_error_in_stream: bool = False  # …as the first event of a stream, after a ping
    fake_framing: str = "length"  # of answers that are no streams: length, chunked, close
    fake_first_byte_delay: float = 0.0
    fake_token_delay: float = 0.0
    fake_die_at_byte: int = NEVER  # of an answer's body; -1: before its head
    fake_die_if: str = ""  # …only in answers to requests that hold this text
    fake_death: str = "kill"  # kill, crash, bad_alloc: the process; reset, close: the connection


SHORT = {"-m": "--model", "-a": "--alias", "-np": "--parallel", "-c": "--ctx-size"}


def script_from(arguments: Sequence[str]) -> Script:
    types = {f"--{field.name.replace('_', '-')}": type(field.default) for field in fields(Script)}
    chosen = {}
    rest = iter(arguments)
    for word in rest:
        option = SHORT.get(word, word)
        if option in types:
            name = option.removeprefix("--").replace("-", "_")
            chosen[name] = types[option] is bool or types[option](next(rest))
    script = Script(**chosen)
    if lives(script.fake_journal) >= script.fake_scripted_lives:
        well = {name: value for name, value in chosen.items() if not name.startswith("fake_")}
        script = Script(**well, fake_journal=script.fake_journal, fake_dialect=script.fake_dialect)
    return script


class Journal:
    """What happened, for the test to read."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, event: str, **details: object) -> None:
        entry = {"event": event, "pid": os.getpid(), "at": time.monotonic(), **details}
        os.write(self.file, json.dumps(entry).encode() + b"\n")


def lives(journal: str) -> int:
    try:
        with open(journal) as lines:
            return sum(json.loads(line)["event"] == "started" for line in lines)
    except FileNotFoundError:
        return 0


def lives_beside(journal: str, name: str) -> bool:
    """Is a process there that was started as this model?"""
    with open(journal) as lines:
        entries = [json.loads(line) for line in lines]
    return any(
        entry["event"] == "started"
        and any(word.endswith(f"/{name}.gguf") for word in entry["argv"])
        and os.path.exists(f"/proc/{entry['pid']}")
        for entry in entries
    )


# --- the log ---

CURRENT = {
    "loading": "srv    load_model: loading model '{model}'",
    "loaded": "srv  llama_server: model loaded",
    "listening": "srv  llama_server: listening on {address}",
}
OLD = {
    "loading": "main: loading model",
    "loaded": "main: model loaded",
    "listening": "main: server is listening on {address} - starting the main loop",
}


class Log:
    """Log lines in one of llama-server's dialects."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.milestones = OLD if dialect == "old" else CURRENT
        self.born = time.monotonic()

    def milestone(self, name: str, **details: str) -> None:
        self.line(self.milestones[name].format(**details))

    def line(self, text: str, level: str = "info") -> None:
        age = int((time.monotonic() - self.born) * 1e6)
        match self.dialect:
            case "current":
                clock = f"0.{age // 1_000_000:02}.{age // 1000 % 1000:03}.{age % 1000:03}"
                put(sys.stderr.fileno(), f"{clock} {level[0].upper()} {text}")
            case "old":
                put(sys.stderr.fileno(), text)
            case "jsonl":
                row = {"type": "log", "time": age, "level": level, "msg": f"{text}\n"}
                put(sys.stdout.fileno(), json.dumps(row, separators=(",", ":")))

    def refused_grammar(self, grammar: str) -> None:
        """As llama-server does it: the client's words as they are, past all prefixes."""
        put(sys.stderr.fileno(), f"parse: error parsing grammar: no ::= in\n\n\n{grammar}\n")
        self.line("failed to parse grammar", "error")

    def flood(self, lines: int) -> None:
        for number in range(lines):
            self.line(f"slot update_slots: id  0 | task {number} | n_tokens = {number}, blah blah")


def put(file: int, line: str) -> None:
    os.write(file, line.encode() + b"\n")


# --- answers ---


def count(request: dict[str, object]) -> list[str]:
    """The tokens of the answer: they count on from an assistant's message at the end."""
    limits = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
    (limit, *_) = [request[name] for name in limits if name in request] or [UNASKED_TOKENS]
    messages = request.get("messages") or [{"role": "user", "content": ""}]
    start = len(messages[-1]["content"].split()) if messages[-1]["role"] == "assistant" else 0
    return [f" {number}" for number in range(start, start + limit)]


def data(value: object, event: str = "") -> bytes:
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def chat_events(tokens: list[str], model: str) -> Iterator[bytes]:
    deltas = [{"role": "assistant", "content": None}, *({"content": token} for token in tokens), {}]
    for delta in deltas:
        finish = None if delta else "length"
        choice = {"finish_reason": finish, "index": 0, "delta": delta}
        yield data({"choices": [choice], "model": model, "object": "chat.completion.chunk"})
    yield DONE


def chat_reply(tokens: list[str]) -> object:
    message = {"role": "assistant", "content": "".join(tokens)}
    choice = {"finish_reason": "length", "index": 0, "message": message}
    return {"choices": [choice], "object": "chat.completion"}


def completion_events(tokens: list[str], model: str) -> Iterator[bytes]:
    for token in (*tokens, ""):
        choice = {"text": token, "index": 0, "finish_reason": None if token else "length"}
        yield data({"choices": [choice], "model": model, "object": "text_completion"})
    yield DONE


def completion_reply(tokens: list[str]) -> object:
    choice = {"text": "".join(tokens), "index": 0, "finish_reason": "length"}
    return {"choices": [choice], "object": "text_completion"}


def native_events(tokens: list[str], model: str) -> Iterator[bytes]:
    for token in tokens:
        yield data({"index": 0, "content": token, "stop": False})
    yield data({"index": 0, "content": "", "stop": True, "model": model})


def native_reply(tokens: list[str]) -> object:
    return {"index": 0, "content": "".join(tokens), "stop": True}


def messages_events(tokens: list[str], model: str) -> Iterator[bytes]:
    message = {"type": "message", "role": "assistant", "content": [], "model": model}
    block = {"type": "text", "text": ""}
    events = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *(
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": token}}
            for token in tokens
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}},
        {"type": "message_stop"},
    ]
    return (data(event, event["type"]) for event in events)


def messages_reply(tokens: list[str]) -> object:
    content = [{"type": "text", "text": "".join(tokens)}]
    return {"type": "message", "role": "assistant", "content": content}


def responses_events(tokens: list[str], model: str) -> Iterator[bytes]:
    events = [
        {"type": "response.created", "response": {"status": "in_progress"}},
        *({"type": "response.output_text.delta", "delta": token} for token in tokens),
        {"type": "response.completed", "response": {"status": "completed", "model": model}},
    ]
    return (data(event, event["type"]) for event in events)


def responses_reply(tokens: list[str]) -> object:
    content = [{"type": "output_text", "text": "".join(tokens)}]
    return {"status": "completed", "output": [{"role": "assistant", "content": content}]}


Events = Callable[[list[str], str], Iterator[bytes]]
Reply = Callable[[list[str]], object]

GENERATION: dict[str, tuple[Events, Reply]] = {
    "/chat/completions": (chat_events, chat_reply),
    "/v1/chat/completions": (chat_events, chat_reply),
    "/v1/completions": (completion_events, completion_reply),
    "/completion": (native_events, native_reply),
    "/completions": (native_events, native_reply),
    "/v1/messages": (messages_events, messages_reply),
    "/responses": (responses_events, responses_reply),
    "/v1/responses": (responses_events, responses_reply),
}


class ClientGone(Exception):
    """The client closed its connection before its answer was complete."""


class Death(Exception):
    """This answer ends here, by the script."""


class Handler(BaseHTTPRequestHandler):
    """One connection. Reads unbuffered, so that the kernel shows when the client leaves."""

    protocol_version = "HTTP/1.1"
    rbufsize = 0
    server: "FakeServer"

    def version_string(self) -> str:
        return "llama.cpp"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self) -> None:
        self.sent = 0
        self.dies_at = NEVER
        script, journal = self.server.script, self.server.journal
        body = self.read_body()
        journal.write(
            "request",
            method=self.command,
            target=self.path,
            headers=self.headers.items(),
            body=body.decode("latin-1"),
            busy=len(self.server.answering),
        )
        try:
            self.route(script, body)
        except Death:
            journal.write("died", sent=self.sent, how=script.fake_death)
            if script.fake_death == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif script.fake_death == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif script.fake_death == "bad_alloc":
                stderr = sys.stderr.fileno()
                put(stderr, "terminate called after throwing an instance of 'std::bad_alloc'")
                put(stderr, "  what():  std::bad_alloc")
                os.abort()
            self.close_connection = True
            os.close(self.connection.detach())  # no shutdown: it would make a reset look clean
        except (ClientGone, ConnectionError):
            journal.write("client closed", sent=self.sent)
            self.close_connection = True
        else:
            journal.write("answered", sent=self.sent)

    do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = answer

    def route(self, script: Script, body: bytes) -> None:
        path = self.path.partition("?")[0]
        if not self.server.ready.is_set():
            self.reply_error(503, "unavailable_error", "Loading model")
        elif path in ("/health", "/v1/health"):
            self.reply({"status": "ok"})
        elif script.fake_echo:
            self.dies_at = script.fake_die_at_byte
            request = {"method": self.command, "target": self.path}
            self.reply({**request, "headers": self.headers.items(), "body": body.decode("latin-1")})
        elif path in GENERATION and self.command == "POST":
            with self.slot():
                self.generate(script, path, json.loads(body))
        elif path in (known := self.server.facts()):
            self.reply(known[path])
        elif self.command == "POST":
            self.reply({"route": path})
        else:
            self.reply_error(404, "not_found_error", "File Not Found")

    def generate(self, script: Script, path: str, request: dict[str, object]) -> None:
        if script.fake_die_if in json.dumps(request):
            self.dies_at = script.fake_die_at_byte
        events, reply = GENERATION[path]
        self.server.log.flood(script.fake_flood)
        self.pause(script.fake_first_byte_delay)
        tokens = script.fake_words.split() or count(request)
        if script.fake_raw:
            self.close_connection = True
            self.connection.sendall(str(request["raw"]).encode("latin-1"))
        elif "grammar" in request:
            self.server.log.refused_grammar(str(request["grammar"]))
            self.reply_error(400, "invalid_request_error", "failed to parse grammar")
        elif script.fake_error and script.fake_error_if in json.dumps(request):
            status, _, message = script.fake_error.partition(" ")
            if script.fake_error_in_stream:
                self.stream_error(int(status), message)
            else:
                self.reply_error(int(status), "server_error", message)
        elif request.get("stream"):
            self.send_head(
                200, "text/event-stream", "Transfer-Encoding: chunked", "Connection: close"
            )
            for event in events(tokens, script.alias or script.model):
                self.pause(script.fake_token_delay)
                self.send_chunk(event)
            self.send_chunk(b"")
        else:
            self.reply(reply(tokens))

    # --- reading ---

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            return b"".join(iter(self.read_chunk, b""))
        length = int(self.headers.get("Content-Length", 0))
        if not (length and self.reset_to_come()):
            return self.read(length)
        return self.read(length - 1) + self.connection.recv(1, socket.MSG_PEEK)

    def read_chunk(self) -> bytes:
        chunk = self.read(int(self.rfile.readline().partition(b";")[0], 16))
        if chunk or not self.reset_to_come():
            self.rfile.readline()
        return chunk

    def reset_to_come(self) -> bool:
        # To close a socket with a byte unread resets it, over TCP and on Unix sockets alike.
        return self.server.script.fake_death == "reset"

    def read(self, size: int) -> bytes:
        return self.connection.recv(size, socket.MSG_WAITALL) if size else b""

    # --- waiting ---

    def pause(self, seconds: float) -> None:
        """Wait, and raise `ClientGone` as soon as the client leaves."""
        readable, _, _ = select.select([self.connection], [], [], seconds)
        if readable:
            if not self.connection.recv(1, socket.MSG_PEEK):
                raise ClientGone
            time.sleep(seconds)

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait for a slot without a word to the client, as llama-server does."""
        while not self.server.slots.acquire(timeout=0.005):
            self.pause(0)
        self.server.answering.add(self)
        try:
            yield
        finally:
            self.server.answering.discard(self)
            self.server.slots.release()

    # --- sending ---

    def stream_error(self, status: int, message: str) -> None:
        self.send_head(200, "text/event-stream", "Transfer-Encoding: chunked", "Connection: close")
        self.send_chunk(b":\n\n")
        self.pause(0.05)
        self.send_chunk(data({"error": {"code": status, "message": message}}))
        self.send_chunk(b"")

    def reply_error(self, status: int, kind: str, message: str) -> None:
        self.reply({"error": {"message": message, "type": kind, "code": status}}, status)

    def reply(self, value: object, status: int = 200) -> None:
        content = json.dumps(value, separators=(",", ":")).encode()
        framing = self.server.script.fake_framing
        header = {
            "length": f"Content-Length: {len(content)}",
            "chunked": "Transfer-Encoding: chunked",
            "close": "Connection: close",
        }[framing]
        self.send_head(status, "application/json; charset=utf-8", header)
        if framing == "chunked":
            self.send_chunk(content)
            self.send_chunk(b"")
        else:
            self.send_body(content)

    def send_head(self, status: int, content: str, *headers: str) -> None:
        if self.dies_at < 0:
            raise Death
        self.send_response(status)
        for header in (f"Content-Type: {content}", *headers):
            self.send_header(*header.split(": "))
        self.end_headers()

    def send_chunk(self, payload: bytes) -> None:
        self.send_body(payload, before=b"%x\r\n" % len(payload), after=b"\r\n")

    def send_body(self, payload: bytes, before: bytes = b"", after: bytes = b"") -> None:
        """Send `payload` in its frame, unless its last bytes are beyond the script's end."""
        if self.sent == self.dies_at:
            raise Death
        alive = payload[: self.dies_at - self.sent]
        self.wfile.write(before + alive + (after if alive == payload else b""))
        self.sent += len(alive)
        if alive != payload:
            raise Death


class FakeServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Listens where the script says, and knows what all connections share."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, script: Script, journal: Journal, log: Log) -> None:
        self.script, self.journal, self.log = script, journal, log
        self.ready = threading.Event()
        self.slots = threading.BoundedSemaphore(script.parallel)
        self.answering: set[Handler] = set()
        on_unix_socket = script.host.endswith(".sock")
        self.address_family = socket.AF_UNIX if on_unix_socket else socket.AF_INET
        super().__init__(script.host if on_unix_socket else (script.host, script.port), Handler)
        if on_unix_socket:
            self.address = f"unix://{script.host}"
        else:
            self.address = f"http://{script.host}:{self.server_address[1]}"
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle_error(self, *_: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            self.journal.write("fault", traceback=traceback.format_exc())

    def facts(self) -> dict[str, object]:
        """What GET routes answer."""
        script = self.script
        name = script.alias or script.model
        models = {"object": "list", "data": [{"id": name, "object": "model"}]}
        busy = len(self.answering)
        slots = [{"id": n, "is_processing": n < busy} for n in range(script.parallel)]
        settings = {"n_ctx": script.ctx_size}
        props = {"total_slots": script.parallel, "default_generation_settings": settings}
        return {"/v1/models": models, "/models": models, "/slots": slots, "/props": props}


# --- life ---


def main(arguments: Sequence[str]) -> NoReturn:
    if "--help" in arguments:
        sys.exit(print(HELP, end=""))
    if "--version" in arguments:
        sys.exit(print(VERSION, end="", file=sys.stderr))
    script = script_from(arguments)
    journal, log = Journal(script.fake_journal), Log(script.fake_dialect)
    known = ("LLAMA", "GGML", "CUDA", "FAKE")
    environment = {name: value for name, value in os.environ.items() if name.startswith(known)}
    journal.write("started", argv=list(arguments), environment=environment)

    heed_signals(script, journal)
    if not script.fake_ignore_stdin:
        threading.Thread(target=end_with_stdin, args=[journal], daemon=True).start()
    if script.fake_grandchild_holds_pipes:
        journal.write("grandchild", grandchild=subprocess.Popen(["sleep", "60"]).pid)
    live(script, journal, log)


def live(script: Script, journal: Journal, log: Log) -> NoReturn:
    try:
        server = FakeServer(script, journal, log)
    except OSError:
        log.line(f"couldn't bind HTTP server socket, hostname: {script.host}", "error")
        log.line("exiting due to HTTP server error", "error")
        leave(journal, 1)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    load(script, journal, log)
    journal.write("loaded")
    if not script.fake_never_ready:
        log.milestone("loaded")
        server.ready.set()
        journal.write("ready")
        log.milestone("listening", address=server.address)
        if script.fake_exit_after_ready < math.inf:
            time.sleep(script.fake_exit_after_ready)
            leave(journal, script.fake_exit_status)
    while True:
        time.sleep(0.05)  # not signal.pause: a signal just before it would wait for the next one


def load(script: Script, journal: Journal, log: Log) -> None:
    log.milestone("loading", model=script.model)
    log.flood(script.fake_flood)
    loaded = time.monotonic() + script.fake_load_seconds
    while (remaining := loaded - time.monotonic()) > 0:
        time.sleep(min(remaining, script.fake_load_line_every))
        log.line("srv    load_model: still loading")
    beside = script.fake_fail_beside
    fails = script.ctx_size > script.fake_fail_above_ctx and (
        not beside or lives_beside(script.fake_journal, beside)
    )
    if script.fake_fail_load and fails:
        words = script.fake_fail_load.split("|")
        log.line(words[min(lives(script.fake_journal), len(words)) - 1], "error")
        log.line("srv  llama_server: exiting due to model loading error", "error")
        leave(journal, 1)


def heed_signals(script: Script, journal: Journal) -> None:
    def heed(number: int, _: object) -> None:
        name = signal.Signals(number).name
        journal.write("signal", name=name, ignored=script.fake_ignore_term)
        if not script.fake_ignore_term:
            os._exit(0)

    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, heed)


def end_with_stdin(journal: Journal) -> None:
    mode = os.fstat(0).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        while os.read(0, 4096):
            pass
        journal.write("stdin closed")
        os._exit(0)


def leave(journal: Journal, status: int) -> NoReturn:
    journal.write("exited", status=status)
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
