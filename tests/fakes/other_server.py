#!/usr/bin/env python3
"""A server that is no llama-server: speech, pictures, and whatever else it is asked for.

What happens to it, it appends to `--journal`, one JSON object a line, as the fake llama-server
does. Only the standard library, so that any Python can run it as a child.
"""

import argparse
import json
import os
import signal
import socket
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

SPEECH = b"RIFF" + bytes(range(256)) * 512


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int)
    where.add_argument("--socket")
    parser.add_argument("--journal", default=os.devnull)
    parser.add_argument("--model", default="")
    parser.add_argument("--start", type=float, default=0.0, help="seconds before it listens")
    parser.add_argument("--load", type=float, default=0.0, help="seconds of 503 at /health")
    parser.add_argument("--fail", default="", help="say this and exit with 3")
    parser.add_argument("--lives", type=int, default=sys.maxsize, help="fail so many times only")
    parser.add_argument("--die-at", default="", help="the path at which it is killed unanswered")
    parser.add_argument("--cut-at", default="", help="the path at which it is killed in its answer")
    parser.add_argument("--hang-at", default="", help="the path at which it never answers")
    parser.add_argument("--eat", type=int, default=0, help="MiB that it takes before it is ready")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--say", default="", help="a line for its log")
    return parser.parse_args()


told = arguments()
born = time.monotonic()


def note(event: str, **details: object) -> None:
    entry = {"event": event, "pid": os.getpid(), "at": time.monotonic(), **details}
    with open(told.journal, "a") as journal:
        journal.write(json.dumps(entry) + "\n")


def is_to_blame() -> bool:
    """Is this one of the lives in which it does harm?"""
    if told.journal == os.devnull:
        return True
    with open(told.journal) as journal:
        return sum('"started"' in line for line in journal) <= told.lives


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        sys.stderr.write(f"other server: {format % args}\n")

    def address_string(self) -> str:
        return "somebody"

    def do_GET(self) -> None:
        if self.path == "/health":
            is_loaded = time.monotonic() - born >= told.start + told.load
            return self._answer(200 if is_loaded else 503, b"{}", "application/json")
        return self._echo(b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        note("request", target=self.path, headers=dict(self.headers.items()), body=len(body))
        if path == told.die_at and is_to_blame():
            os.kill(os.getpid(), signal.SIGKILL)
        if path == told.hang_at and is_to_blame():
            time.sleep(3600)
        if path == "/v1/audio/speech":
            return self._answer(200, SPEECH, "audio/wav", cut=path == told.cut_at)
        if path == "/v1/images/generations":
            picture = {"created": 1, "data": [{"b64_json": "aGVsbG8="}]}
            return self._answer(200, json.dumps(picture).encode(), "application/json")
        return self._echo(body)

    do_PUT = do_DELETE = do_POST

    def _echo(self, body: bytes) -> None:
        said = {"method": self.command, "target": self.path, "body": body.decode("latin-1")}
        self._answer(200, json.dumps(said).encode(), "application/json")

    def _answer(self, status: int, body: bytes, kind: str, *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if cut and is_to_blame():
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        self.wfile.write(body)
        note("answered", target=self.path)


class Server(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:  # without a name, which would have to be resolved
        self.socket.bind(self.server_address)


class UnixServer(Server):
    address_family = socket.AF_UNIX


def end(number: int, frame: object) -> None:
    note("signal", name=signal.Signals(number).name)
    if not told.ignore_term:
        os._exit(0)


def main() -> None:
    signal.signal(signal.SIGTERM, end)
    note("started", argv=sys.argv, environment=dict(os.environ))
    print(told.say or "other server: here I am", file=sys.stderr, flush=True)
    time.sleep(told.start)
    if told.fail and is_to_blame():
        print(told.fail, file=sys.stderr, flush=True)
        os._exit(3)
    eaten = b"x" * (told.eat << 20)
    where: Any = told.socket or ("127.0.0.1", told.port)
    with (UnixServer if told.socket else Server)(where, Answers) as server:
        note("listens", eaten=len(eaten))
        server.serve_forever()


main()
