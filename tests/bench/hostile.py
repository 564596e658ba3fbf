"""The longest that the loop was held by one request of a hostile set: nobody else moves then."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llamasup.models.demo import reciting_model
from tests.bench import clients
from tests.bench.measures import Bench
from tests.bench.proxies import CANNED_ENGINE, free_address, wait_to_connect
from tests.bench.report import Figure, Target

MODELS = 2000
MOST = 5.0
M = 1 << 20
_PATIENCE = 60.0


def _post(body: bytes, target: bytes = b"/v1/chat/completions", *headers: bytes) -> bytes:
    lines = [b"POST %b HTTP/1.1" % target, b"Host: localhost", b"Connection: close", *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


def _get(target: bytes, *headers: bytes) -> bytes:
    lines = [b"GET %b HTTP/1.1" % target, b"Host: localhost", b"Connection: close", *headers]
    return b"\r\n".join([*lines, b"", b""])


def _one_byte_chunks(count: int) -> bytes:
    lines = [b"POST /tokenize HTTP/1.1", b"Host: a", b"Connection: close"]
    head = b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", b""])
    return head + b"1\r\n \r\n" * count + b"0\r\n\r\n"


_FORM_TYPE = b"Content-Type: multipart/form-data; boundary=b"


def hostile_requests() -> dict[str, bytes]:
    """By name: each made to cost as much as it can."""
    return {
        "63 MB of numbers": _post(b'{"x":[' + b"1," * (31 * M) + b"1]}"),
        "63 MB of objects": _post(b'{"stream":[' + b"{}," * (20 * M) + b"{}]}"),
        "a name of 60 MB": _post(b'{"model":"' + b"x" * (60 * M) + b'"}'),
        "a number of 60 MB": _post(b'{"model":' + b"1" * (60 * M) + b"}"),
        "60 MB of brackets": _post(b'{"x":' + b"[" * (60 * M)),
        "60 MB of keys": _post(b"{" + b'"a":1,' * (10 * M) + b'"b":2}'),
        "60 MB of escapes": _post(b'{"x":"' + b"\\u0041" * (10 * M) + b'"}'),
        "60 MB for the engine": _post(b'{"content":"' + b"x" * (60 * M) + b'"}', b"/tokenize"),
        "a form of 60 MB": _post(
            b"--b\r\n" * (4 * M) + b"x" * (40 * M), b"/v1/audio/transcriptions", _FORM_TYPE
        ),
        "chunks of a byte": _one_byte_chunks(M),
        "Priority of 60 kB": _post(b"{}", b"/tokenize", b"Priority: " + b"u=1," * 15000 + b"u=1"),
        "99 headers": _get(b"/health", *(b"X-%d: %b" % (n, b"y" * 600) for n in range(95))),
        "an unknown name": _post(b'{"model":"qwne3-8x-instrcut-q4_k"}'),
        "a long unknown name": _post(b'{"model":"' + b"mdoel-" * 150 + b'"}'),
        "all models": _get(b"/v1/models"),
        "what fits": _get(b"/modelFits"),
        "the status": _get(b"/api/status"),
        "a thousand at once": _get(b"/props", b"X: y").replace(b"close", b"keep-alive") * 1000
        + _get(b"/health"),
    }


def hostile(bench: Bench) -> list[Figure]:
    """Each request of the set by itself, against a llamasup that knows 2,000 models."""
    most = Figure("hostile requests: loop held at most", "ms", Target("value", MOST))
    figures = [most]
    with _observed() as (address, told, process):
        _send(address, _get(b"/v1/models"))
        worst = 0.0
        for name, request in hostile_requests().items():
            _held(told, process)
            _send(address, request)
            seconds, task = _held(told, process)
            print(f"  {name}: {seconds * 1000:.2f} ms ({task})", file=sys.stderr)
            worst = max(worst, seconds)
        most.add("llamasup", worst * 1000)
    return figures


@contextmanager
def _observed() -> Iterator[tuple[clients.Address, Path, subprocess.Popen[bytes]]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        models = folder / "models"
        models.mkdir()
        content = reciting_model([" 0"], context=4096, name="m")
        for number in range(MODELS):
            (models / f"model-{number:04}-8b-instruct-q4_k_m.gguf").write_bytes(content)
        host, port = address = free_address()
        flags = {
            "server.listen": f"{host}:{port}",
            "engine.command": CANNED_ENGINE,
            **{f"folders.{kind}": folder / kind for kind in ("cache", "run", "state")},
        }
        words = [word for key, value in flags.items() for word in ("--set", f"{key}={value}")]
        told = folder / "told"
        inside = [sys.executable, "-m", "tests.bench.inside", str(told)]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*inside, "serve", "--models-dir", str(models), *words], stderr=log
            )
        try:
            wait_to_connect(address, process)
            yield address, told, process
        finally:
            process.terminate()
            process.wait()


def _send(address: clients.Address, request: bytes) -> None:
    """Send all of it, as far as it is taken, and hear the answer to its end."""
    with clients.connect(address) as sock:
        sock.settimeout(_PATIENCE)
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(request)
        with suppress(ConnectionResetError):
            while sock.recv(1 << 16):
                pass


def _held(told: Path, process: subprocess.Popen[bytes]) -> tuple[float, str]:
    told.unlink(missing_ok=True)
    os.kill(process.pid, signal.SIGUSR1)
    deadline = time.monotonic() + _PATIENCE
    while not told.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("llamasup does not tell how long its loop was held")
        time.sleep(0.01)
    seconds, task = json.loads(told.read_text())
    return seconds, task
