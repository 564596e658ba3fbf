"""Real devices without a GPU: RPC servers on this machine, and Vulkan on its processor.

They need a llama-server with those backends and a ggml-rpc-server, in the folder that
LLAMASUP_TEST_LLAMA_DEVICES names. Where it names none, nothing here runs: pytest says that it ran
no test, and ends with 5.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.harness import eventually
from tests.models.shapes import Shape, attention, common, feed_forward, model

FOLDER = os.environ.get("LLAMASUP_TEST_LLAMA_DEVICES")
if not FOLDER:
    collect_ignore_glob = ["test_*.py"]

RpcServers = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture
def engine_with_devices() -> str:
    """`engine.command` of a llama-server that knows devices."""
    return f"{FOLDER}/llama-server"


@pytest.fixture
def small_devices(tmp_path: Path) -> str:
    """The same, but each RPC server seems to have no more than 600 MiB: they all have the memory of
    this machine, which no test could fill."""
    program = tmp_path / "small-devices"
    as_if = r"s/^\(  RPC.* (\)[0-9]* MiB, [0-9]* MiB free/\1600 MiB, 600 MiB free/"
    program.write_text(
        "#!/bin/sh\n"
        f"real={FOLDER}/llama-server\n"
        'case " $* " in *" --list-devices "*)\n'
        f'  "$real" "$@" 2>&1 | sed "{as_if}"; exit ;;\n'
        "esac\n"
        'exec "$real" "$@"\n'
    )
    program.chmod(0o755)
    return str(program)


@pytest.fixture(scope="session")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight layers with 256 MiB of KV cache for 16384 tokens, and hardly any weights."""
    layer = attention(512, 8, 8, 64) | feed_forward(512, 512)
    shape = Shape("wide", "llama", common(512, 8, 8, 8, 512), model(512, 8, lambda _: layer))
    return shape.write(tmp_path_factory.mktemp("wide"))


@pytest.fixture
def rpc_server() -> RpcServers:
    """Starts an RPC server: `async with rpc_server() as address`; with `memory`, in bytes of its
    address space; with `address`, where another one was before."""

    @asynccontextmanager
    async def serving(*, memory: int | None = None, address: str = "") -> AsyncIterator[str]:
        port = int(address.rpartition(":")[2]) if address else _free_port()
        limited = ["prlimit", f"--as={memory}"] if memory else []
        process = await trio.lowlevel.open_process(
            [*limited, f"{FOLDER}/ggml-rpc-server", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await eventually(lambda: _listens(port))
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()

    return serving


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port: int = trial.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
