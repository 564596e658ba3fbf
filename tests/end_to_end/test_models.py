"""What every model needs and what fits, over HTTP and on the command line."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from time import thread_time
from typing import Any

import pytest
import trio

from tests.harness import FAKE, LLAMASUP, PATIENCE, REPOSITORY, Llamasup, chat, eventually, running

Fake = Callable[..., Mapping[str, object]]
CHAT = "/v1/chat/completions"
GIB = 1 << 30


async def fits(llamasup: Llamasup) -> dict[str, Any]:
    """What `/modelFits` says of each model, by name."""
    reply = await llamasup.ask("GET", "/modelFits")
    assert reply.status == 200, reply.body
    return {model["name"]: model for model in reply.json()["models"]}


@pytest.mark.parametrize("path", ["/modelFits", "/v1/modelFits"])
async def test_a_real_model_has_a_need_and_a_rung_that_fits(
    counting: Mapping[str, object], count_model: Path, path: str
) -> None:
    async with running(counting) as llamasup:
        document = (await llamasup.ask("GET", path)).json()
    [count] = document["models"]
    assert (count["name"], count["state"]) == ("count", "unloaded")
    assert (count["path"], count["size"]) == (str(count_model), count_model.stat().st_size)
    assert (count["max_context"], count["fits"]["context"]) == (32768, 32768)
    assert count["size"] < count["begins"]["needs"]["host"] < GIB
    by_itself = counting["engine.command"] == "embedded"
    assert count["begins"]["source"] == ("header" if by_itself else "engine")
    assert document["free"]["host"] > 0


async def test_the_command_says_which_models_are_loaded_and_which_would_be_unloaded(
    faking: Fake,
) -> None:
    config = {**faking(name="a"), **faking(name="b"), "pool.max_loaded_models": 1}
    async with running(config) as llamasup:
        assert (await llamasup.ask("POST", CHAT, chat(1, model="a"))).status == 200
        models = await fits(llamasup)
    assert (models["a"]["state"], models["a"]["begins"]["evicts"]) == ("ready", [])
    assert (models["b"]["state"], models["b"]["begins"]["evicts"]) == ("unloaded", ["a"])


async def test_to_ask_what_fits_loads_nothing(faking: Fake) -> None:
    async with running(faking()) as llamasup:
        await fits(llamasup)
        assert (await llamasup.model_status("fake"))["loads"] == 0


async def test_a_file_that_comes_is_told_of(count_model: Path, tmp_path: Path) -> None:
    async with running({"engine.command": FAKE, "discover.folders": [str(tmp_path)]}) as llamasup:
        assert await fits(llamasup) == {}
        shutil.copy(count_model, tmp_path)

        async def is_told_of() -> bool:
            return list(await fits(llamasup)) == ["count"]

        await eventually(is_told_of)


async def test_hundreds_of_models_are_told_of_in_a_moment(
    count_model: Path, tmp_path: Path
) -> None:
    header = count_model.read_bytes()
    for number in range(200):
        (tmp_path / f"m{number}.gguf").write_bytes(header)
    async with running({"engine.command": FAKE, "discover.folders": [str(tmp_path)]}) as llamasup:
        assert len(await fits(llamasup)) == 200
        began = thread_time()
        assert len(await fits(llamasup)) == 200
        assert thread_time() - began < 0.5  # of the processor, however busy the machine is


# --- on the command line ---


def models(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """`llamasup models` with `arguments`, to its end."""
    return subprocess.run(
        [*LLAMASUP, "models", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.fixture
def unused(tmp_path: Path) -> list[str]:
    """Flags for folders of this test, and for an address where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    folders = [f"--set=folders.{name}={tmp_path}/{name}" for name in ("run", "cache", "state")]
    return [f"--listen=127.0.0.1:{port}", *folders]


def test_models_are_shown_without_a_server(
    engine: str, count_model: Path, tmp_path: Path, unused: list[str]
) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"no model at all")
    flags = ["--engine", engine, "--model", str(count_model), "--model", "broken.gguf", *unused]
    done = models(tmp_path, *flags)
    assert (done.returncode, done.stderr) == (0, "")
    first, _, headings, count, broken = done.stdout.splitlines()
    assert "free for models, by the defaults; nothing is loaded" in first
    assert headings.split()[:4] == ["MODEL", "FILE", "SIZE", "TRAINED"]
    assert count.split()[:2] == ["count", "count.gguf"]
    assert count.split()[-2:] == ["header" if engine == "embedded" else "engine", "32768"]
    assert "not with b'GGUF'" in broken
    assert list((tmp_path / "run").iterdir()) == []


def test_models_are_shown_as_json(count_model: Path, tmp_path: Path, unused: list[str]) -> None:
    done = models(tmp_path, "--json", "--engine", FAKE, "--model", count_model, *unused)
    document = json.loads(done.stdout)
    assert document["served_by"] is None
    [count] = document["models"]
    assert count["begins"]["needs"]["host"] > count["size"]


async def test_a_llamasup_that_serves_is_asked(
    faking: Fake, tmp_path: Path, unused: list[str]
) -> None:
    with TemporaryDirectory(prefix="llamasup-test-") as short:  # a socket's path must be
        listen = f"unix:{short}/x.sock"
        config = {**faking(name="a"), **faking(name="b"), "pool.max_loaded_models": 1}
        async with running({**config, "server.listen": ["127.0.0.1:0", listen]}) as llamasup:
            assert (await llamasup.ask("POST", CHAT, chat(1, model="a"))).status == 200
            for address in (listen, str(llamasup.address)):
                flags = [*unused[1:], f"--listen={address}"]
                done = await trio.to_thread.run_sync(models, tmp_path, *flags)
                assert (done.returncode, done.stderr) == (0, "")
                assert f"as the llamasup on {address} says" in done.stdout
                a, b = done.stdout.splitlines()[-2:]
                assert a.endswith("ready")
                assert b.endswith("a would go for it")


async def test_one_that_tells_only_operators_is_said_to_serve(
    faking: Fake, tmp_path: Path, unused: list[str]
) -> None:
    """Nobody is told that nothing is loaded, and no key goes to whoever listens there."""
    async with running({**faking(name="a"), "keys.ann.key": "x" * 16}) as llamasup:
        flags = [*unused[1:], f"--listen={llamasup.address}"]
        done = await trio.to_thread.run_sync(models, tmp_path, *flags)
        assert (done.returncode, done.stderr) == (0, "")
        first = f"by the defaults; {llamasup.address} tells only operators what is loaded"
        assert done.stdout.splitlines()[0].endswith(first)


async def test_another_server_at_that_address_is_not_believed(
    count_model: Path, tmp_path: Path, unused: list[str]
) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7")

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        port = listeners[0].socket.getsockname()[1]
        flags = ["--engine", FAKE, "--model", str(count_model), *unused[1:]]
        done = await trio.to_thread.run_sync(models, tmp_path, *flags, f"--listen=127.0.0.1:{port}")
        nursery.cancel_scope.cancel()
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing is loaded" in done.stdout


@pytest.mark.parametrize(
    ("mistake", "told"),
    [
        ("no-such.toml", "no-such.toml: there is no such file"),
        ("--engine=/no/such/engine", "/no/such/engine does not exist"),
        ("--set=server.listne=:1", '"listen"'),
    ],
)
def test_a_mistake_is_told(tmp_path: Path, unused: list[str], mistake: str, told: str) -> None:
    done = models(tmp_path, mistake, *unused)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
