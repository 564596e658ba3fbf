"""The ways to the engine: none between, nginx, llamasup. Started in a folder, stopped by pid."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.bench.clients import KEY, PATIENCE, Address, connect

UPSTREAM = Path(__file__).with_name("upstream.py")
CANNED_ENGINE = f"{sys.executable} -I -S {UPSTREAM}"

NGINX_CONFIG = """
daemon off; worker_processes 1; worker_rlimit_nofile {files};
pid {folder}/nginx.pid; error_log stderr warn; {user}
events {{ worker_connections 8192; }}
http {{
    access_log off; keepalive_requests 100000000;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxied;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream engine {{ server unix:{engine}; keepalive 64; keepalive_requests 100000000; }}
    server {{
        listen {host}:{port} backlog=4096;
        location / {{
            proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_buffering off; proxy_read_timeout 300s;
        }}
    }}
}}
"""

LLAMASUP_CONFIG = """
[server]
listen = "{host}:{port}"
[engine]
command = "{engine}"
[pool]
max_loaded_models = {max_loaded}
fair = "{fair}"
[folders]
cache = "{folder}/cache"
run = "{folder}/run"
state = "{folder}/state"
"""
GUARD_CONFIG = """
[keys.bench]
key = "{key}"
requests_per_minute = 1_000_000_000
tokens_per_minute = 1_000_000_000
at_once = 1_000_000
"""
FILTER_CONFIG = """default_params = {{ top_k = 40, metadata = {{ from = "the bench" }} }}
"""
MODEL_CONFIG = """
[models.{name}]
path = "{path}"
parallel = {parallel}
"""


class Unavailable(Exception):
    """A way cannot be measured; the message says what to do about it."""


@dataclass(frozen=True)
class Way:
    """One way to the engine: where clients connect, whose CPU is the price, who answers."""

    name: str
    address: Address
    pids: tuple[int, ...] = ()
    engine_pids: tuple[int, ...] = ()
    """Known beforehand but for llamasup, which starts its engine when it is asked."""

    seconds_to_listen: float = 0.0


@contextlib.contextmanager
def reference_engine(folder: Path) -> Iterator[tuple[Way, Path]]:
    """The canned engine by itself: the direct way over TCP, and the socket that nginx uses."""
    address, path = free_address(), folder / "engine.sock"
    hosts = ["--host", str(path), "--host", address[0], "--port", str(address[1])]
    with _running("engine", [*CANNED_ENGINE.split(), *hosts], folder) as process:
        wait_to_connect(address, process)
        yield Way("direct", address, engine_pids=(process.pid,)), path


@contextlib.contextmanager
def nginx(folder: Path, engine: Path, engine_pids: tuple[int, ...]) -> Iterator[Way]:
    """nginx with one worker and its usual kept-alive connections to the engine's Unix socket."""
    if not (program := shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")):
        raise Unavailable("nginx is not installed: apt-get install nginx-light")
    address = host, port = free_address()
    # As root, nginx would make its worker nobody, who may not enter our folder.
    user = "" if os.geteuid() else f"user {pwd.getpwuid(0).pw_name} root;"
    (folder / "nginx.conf").write_text(
        NGINX_CONFIG.format(
            folder=folder, user=user, engine=engine, host=host, port=port, files=20000
        )
    )
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    spawning = time.monotonic()
    with _running("nginx", [*command, "-e", "stderr"], folder) as process:
        seconds = wait_to_connect(address, process) - spawning
        workers = (child.pid for child in psutil.Process(process.pid).children())
        yield Way("nginx", address, (process.pid, *workers), engine_pids, seconds)


@dataclass(frozen=True)
class Llamasup:
    """How to start llamasup: the command before `serve FILE`, and the engine behind it."""

    command: Sequence[str]
    engine: str = CANNED_ENGINE
    model: Path | None = None
    parallel: int = 2000
    models: Sequence[str] = ("canned",)
    """Names for the one model file."""

    max_loaded: int = 0
    guarded: bool = False
    """With a key that has limits, fairness by tokens, and a filter of params."""

    @contextlib.contextmanager
    def serving(self, folder: Path) -> Iterator[Way]:
        address = host, port = free_address()
        config = folder / "llamasup.toml"
        whole = LLAMASUP_CONFIG.format(
            host=host,
            port=port,
            engine=self.engine,
            max_loaded=self.max_loaded,
            fair="tokens" if self.guarded else "turns",
            folder=folder,
        )
        path = self.model or _empty_gguf(folder)
        for name in self.models:
            whole += MODEL_CONFIG.format(name=name, path=path, parallel=self.parallel)
            whole += FILTER_CONFIG.format() if self.guarded else ""
        whole += GUARD_CONFIG.format(key=KEY) if self.guarded else ""
        config.write_text(whole)
        spawning = time.monotonic()
        with _running("llamasup", [*self.command, "serve", str(config)], folder) as process:
            seconds = wait_to_connect(address, process) - spawning
            yield Way("llamasup", address, (process.pid,), seconds_to_listen=seconds)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ends a process, asked first and then forced, with every child that it leaves behind."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


@contextlib.contextmanager
def _running(name: str, command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    try:
        with (folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    except OSError as error:
        raise Unavailable(f"{command[0]} cannot be run: {error}") from error
    try:
        yield process
    finally:
        if (status := process.poll()) is not None:
            words = (folder / f"{name}.log").read_text(errors="replace")[-2000:].strip()
            print(f"{name} ended by itself with {status}:\n{words}", file=sys.stderr)
        stop(process)


def wait_to_connect(address: Address, process: subprocess.Popen[bytes]) -> float:
    """The moment at which a first connection succeeds."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        try:
            connect(address).close()
        except ConnectionRefusedError:
            time.sleep(0.001)
        else:
            return time.monotonic()
    raise Unavailable("it does not listen")


def free_address() -> tuple[str, int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        host, port = sock.getsockname()
        return host, port


def _empty_gguf(folder: Path) -> Path:
    """A model file without tensors: all that the canned engine needs."""
    path = folder / "canned.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, 0))
    return path
