"""llamasup is told to stop: nobody is let in any more, running answers end, and nothing is left.

A real process is signalled: with SIGINT as a terminal does it, which signals the whole foreground,
and with SIGTERM as a service manager does it.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import trio

from llamasup.config.load import dump, load
from tests.harness import (
    Client,
    Journal,
    Llamasup,
    Program,
    Reply,
    chat,
    counted,
    eventually,
    is_alive,
    request,
    started,
)

CHAT = "/v1/chat/completions"
SOON = 5.0
"""Seconds: more than cleaning up ever takes, less than any timeout that nobody shall wait for."""

Fake = Callable[..., Mapping[str, object]]
Ask = Callable[[Program], None]


def interrupt(program: Program) -> None:
    os.killpg(program.process.pid, signal.SIGINT)


def terminate(program: Program) -> None:
    program.process.terminate()


@pytest.fixture(params=[interrupt, terminate])
def ask(request: pytest.FixtureRequest) -> Ask:
    """A way to ask it to stop."""
    chosen: Ask = request.param
    return chosen


@pytest.fixture
def folder() -> Iterator[Path]:
    """For its configuration and its run folder; the path is short, as Unix sockets need it."""
    with TemporaryDirectory(prefix="llamasup-test-") as folder:
        (Path(folder) / "run").mkdir()
        yield Path(folder)


@asynccontextmanager
async def serving(
    folder: Path, config: Mapping[str, object]
) -> AsyncIterator[tuple[Program, Llamasup]]:
    """A process with this configuration that listens."""
    async with started(written(config, folder)) as program:
        yield program, await program.listens(folder / "run")


def written(config: Mapping[str, object], folder: Path) -> Path:
    """The configuration as a file."""
    flags = {"server.listen": "127.0.0.1:0", "folders.run": str(folder / "run"), **config}
    file = folder / "llamasup.toml"
    file.write_text(dump(load(None, {}, flags)))
    return file


# --- gently ---


async def test_an_idle_one_ends_at_once(
    counting: dict[str, object], folder: Path, ask: Ask
) -> None:
    async with serving(folder, counting) as (program, llamasup), llamasup.connect() as idle:
        await idle.send(request("POST", CHAT, chat(3)))
        assert (await idle.reply()).complete
        family = engines(program)
        assert family
        with trio.fail_after(SOON):
            ask(program)
            assert await idle.read_some() == b""
            assert await program.exit() == 0
        assert "Traceback" not in program.said
        nothing_is_left(family, folder)


@pytest.mark.parametrize("more", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
async def test_signals_up_to_the_last_moment_do_not_change_how_it_ends(
    faking: Fake, folder: Path, more: signal.Signals
) -> None:
    async with serving(folder, faking()) as (program, _):
        program.process.terminate()
        with trio.fail_after(SOON):
            while program.process.poll() is None:
                program.process.send_signal(more)
                await trio.sleep(0.001)
        assert program.process.returncode == 0


async def test_a_running_stream_arrives_whole(
    counting: dict[str, object], folder: Path, ask: Ask
) -> None:
    async with serving(folder, counting) as (program, llamasup), llamasup.connect() as client:
        await client.send(request("POST", CHAT, chat(2000)))
        await beginning(client)
        family = engines(program)
        ask(program)
        reply = await client.reply()
        assert reply.text() == counted(2000)
        assert reply.events()[-1] == "[DONE]"
        assert reply.complete
        assert await program.exit() == 0
        nothing_is_left(family, folder)


async def test_no_client_is_let_in_while_answers_end(faking: Fake, folder: Path, ask: Ask) -> None:
    async with (
        serving(folder, faking("--fake-token-delay", "0.02")) as (program, llamasup),
        llamasup.connect() as client,
    ):
        await client.send(request("POST", CHAT, chat(50)))
        await beginning(client)
        ask(program)
        await eventually(lambda: refuses(llamasup))
        assert program.process.returncode is None
        assert (await client.reply()).text() == counted(50)
        assert await client.read_some() == b""
        assert await program.exit() == 0


async def test_a_request_that_waits_for_a_loading_model_is_answered_too(
    faking: Fake, journal: Journal, folder: Path
) -> None:
    async with (
        serving(folder, faking("--fake-load-seconds", "0.7")) as (program, llamasup),
        llamasup.connect() as client,
    ):
        await client.send(request("POST", CHAT, chat(5)))
        await journal.first("started")
        terminate(program)
        assert (await client.reply()).text() == counted(5)
        assert await program.exit() == 0
        nothing_is_left(pids(journal), folder)


# --- not gently ---


def told_that_it_ends(reply: Reply) -> bool:
    """A stream that ended properly, with an error as its last event."""
    *said, end = reply.events()
    return (
        reply.complete
        and "[DONE]" not in said
        and json.loads(end)["error"]["code"] == "shutting_down"
    )


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_after_the_drain_timeout_a_stream_ends_with_an_error_event(
    faking: Fake, journal: Journal, folder: Path, version: bytes
) -> None:
    config = {**faking("--fake-token-delay", "0.02"), "server.drain_timeout": "0.5s"}
    async with (
        serving(folder, config) as (program, llamasup),
        llamasup.connect() as client,
    ):
        asking = request("POST", CHAT, chat(100_000))
        await client.send(asking.replace(b"HTTP/1.1", version, 1))
        await beginning(client)
        asked = trio.current_time()
        terminate(program)
        reply = await client.reply()
        assert 0.4 < trio.current_time() - asked < SOON
        assert told_that_it_ends(reply)
        assert await program.exit() == 0
        nothing_is_left(pids(journal), folder)


async def test_a_request_that_waits_at_the_end_of_the_drain_is_told_so_and_when_to_come_again(
    faking: Fake, journal: Journal, folder: Path
) -> None:
    config = {
        **faking("--fake-token-delay", "0.02"),
        "server.drain_timeout": "0.5s",
        "server.keepalive_after": "0.1s",
        "models.fake.parallel": 1,
    }
    async with serving(folder, config) as (program, llamasup), AsyncExitStack() as clients:
        streaming, unseen, waiting, comforted = [
            await clients.enter_async_context(llamasup.connect()) for _ in range(4)
        ]
        await streaming.send(request("POST", CHAT, chat(100_000)))
        await beginning(streaming)
        await unseen.send(request("POST", CHAT, chat(5, stream=False)))
        await waiting.send(request("POST", "/v1/completions", {"prompt": "x", "max_tokens": 5}))
        await comforted.send(request("POST", CHAT, chat(5)))
        assert await comforted.read_until(b"waiting for a slot")
        assert await comforted.read_until(b"\n\n\r\n")
        terminate(program)
        for client in (unseen, waiting):
            reply = await client.reply()
            assert reply.status == 503
            assert reply.error["code"] == "shutting_down"
            assert int(reply.headers["retry-after"]) > 0
            assert reply.headers["connection"] == "close"
        rest, whole = await comforted.chunks()
        assert whole
        assert b'"shutting_down"' in rest
        assert told_that_it_ends(await streaming.reply())
        assert await program.exit() == 0


async def test_an_answer_that_nothing_can_be_said_in_looks_cut(faking: Fake, folder: Path) -> None:
    config = {**faking("--fake-echo"), "server.drain_timeout": "0.3s"}
    body = b'{"content":"' + b"x" * (20 << 20) + b'"}'
    async with serving(folder, config) as (program, llamasup), llamasup.connect() as client:
        await client.send(request("POST", "/tokenize", body))
        assert await client.read_until(b"\r\n\r\n")
        terminate(program)
        await program.hears("an answer was cut")
        with pytest.raises(trio.BrokenResourceError):
            await to_the_end(client)
        assert await program.exit() == 0


async def test_clients_that_take_nothing_hold_up_the_end_for_a_moment_at_most(
    faking: Fake, folder: Path
) -> None:
    config = {**faking(), "models.fake.parallel": 4}
    async with serving(folder, config) as (program, llamasup), AsyncExitStack() as clients:
        for _ in range(4):
            client = await clients.enter_async_context(llamasup.connect())
            await client.send(request("POST", CHAT, chat(300_000)))
            await beginning(client)
        terminate(program)
        await program.hears("stopping")
        terminate(program)
        with trio.fail_after(SOON):
            assert await program.exit() == 0


async def test_a_second_signal_waits_for_no_answer(
    faking: Fake, journal: Journal, folder: Path, ask: Ask
) -> None:
    config = {**faking("--fake-token-delay", "0.02"), "server.drain_timeout": "10m"}
    async with (
        serving(folder, config) as (program, llamasup),
        llamasup.connect() as client,
    ):
        await client.send(request("POST", CHAT, chat(100_000)))
        await beginning(client)
        ask(program)
        await eventually(lambda: refuses(llamasup))
        with trio.fail_after(SOON):
            ask(program)
            assert told_that_it_ends(await client.reply())
            assert await program.exit() == 0
        nothing_is_left(pids(journal), folder)


# --- at any time ---


async def test_a_load_without_waiting_requests_is_given_up(
    faking: Fake, journal: Journal, folder: Path, ask: Ask
) -> None:
    config = {**faking("--fake-load-seconds", "600"), "pool.preload": ["fake"]}
    async with serving(folder, config) as (program, _):
        await journal.first("started")
        with trio.fail_after(SOON):
            ask(program)
            assert await program.exit() == 0
        nothing_is_left(pids(journal), folder)


async def test_a_load_outlives_no_drain_timeout(
    faking: Fake, journal: Journal, folder: Path
) -> None:
    config = {**faking("--fake-load-seconds", "600"), "server.drain_timeout": "0.3s"}
    async with serving(folder, config) as (program, llamasup), llamasup.connect() as client:
        await client.send(request("POST", CHAT, chat(5)))
        await journal.first("started")
        with trio.fail_after(SOON):
            terminate(program)
            assert (await client.reply()).error["code"] == "shutting_down"
            assert await program.exit() == 0
        nothing_is_left(pids(journal), folder)


@pytest.mark.parametrize("moment", [0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4])
async def test_it_can_be_stopped_at_any_moment_of_its_start(
    faking: Fake, journal: Journal, folder: Path, ask: Ask, moment: float
) -> None:
    file = written({**faking(), "pool.preload": ["fake"]}, folder)
    async with started(file) as program:
        await trio.sleep(moment)
        with trio.fail_after(SOON):
            ask(program)
            status = await program.exit()
        trace = program.said.partition("Traceback")[2]
        # Interrupted while it still imports, Python says where, and ends with 1 or -2.
        assert set(re.findall(r"llamasup/\S+, line \d+, in (.+)", trace)) <= {"<module>"}, trace
        assert status in (0, -signal.SIGINT, -signal.SIGTERM) or (status == 1 and trace)
        nothing_is_left(pids(journal), folder)


# --- nothing is left ---


async def test_an_engine_that_ignores_to_be_asked_is_killed(
    faking: Fake, journal: Journal, folder: Path
) -> None:
    config = {
        **faking("--fake-ignore-term", "--fake-ignore-stdin"),
        "pool.preload": ["fake"],
        "engine.stop_grace": "0.3s",
    }
    async with serving(folder, config) as (program, _):
        await journal.first("ready")
        with trio.fail_after(SOON):
            terminate(program)
            assert await program.exit() == 0
        assert journal.entries("signal")
        nothing_is_left(pids(journal), folder)


async def test_what_an_engine_started_ends_with_it(
    faking: Fake, journal: Journal, folder: Path
) -> None:
    config = {**faking("--fake-grandchild-holds-pipes"), "pool.preload": ["fake"]}
    async with serving(folder, config) as (program, _):
        grandchild = (await journal.first("grandchild"))["grandchild"]
        await journal.first("ready")
        with trio.fail_after(SOON):
            terminate(program)
            assert await program.exit() == 0
        nothing_is_left([grandchild, *pids(journal)], folder)


async def test_its_own_unix_socket_is_removed(faking: Fake, folder: Path) -> None:
    door = folder / "llamasup.sock"
    file = written({**faking(), "server.listen": f"unix:{door}"}, folder)
    async with started(file) as program:
        await program.hears(f"listens on unix:{door}")
        assert door.is_socket()
        terminate(program)
        assert await program.exit() == 0
        assert not door.exists()
        nothing_is_left([], folder)


async def test_engines_end_by_themselves_when_llamasup_is_killed(
    counting: dict[str, object], folder: Path
) -> None:
    async with serving(folder, counting) as (program, llamasup):
        assert (await llamasup.ask("POST", CHAT, chat(3))).complete
        family = engines(program)
        assert family
        program.process.kill()
        await program.exit()
        await eventually(lambda: not any(map(is_alive, family)))


async def test_an_engine_in_a_load_does_not_outlive_a_llamasup_that_is_killed(
    faking: Fake, journal: Journal, folder: Path
) -> None:
    deaf = faking("--fake-never-ready", "--fake-ignore-stdin", "--fake-ignore-term")
    async with serving(folder, {**deaf, "pool.preload": ["fake"]}) as (program, _):
        await journal.first("loaded")  # and never ready
        (family,) = pids(journal)
        program.process.kill()
        await program.exit()
        await eventually(lambda: not is_alive(family), within=2)


async def test_what_a_killed_llamasup_left_is_swept_by_the_next_one(
    faking: Fake, journal: Journal, folder: Path
) -> None:
    config = {**faking("--fake-ignore-stdin"), "pool.preload": ["fake"]}
    async with serving(folder, config) as (program, llamasup):

        async def is_ready() -> bool:
            return (await llamasup.model_status("fake"))["state"] == "ready"

        await eventually(is_ready)
        program.process.kill()
        await program.exit()
    (left,) = pids(journal)
    try:
        assert is_alive(left)
        async with serving(folder, {**config, "pool.preload": []}) as (program, _):
            assert not is_alive(left)
            terminate(program)
            assert await program.exit() == 0
        nothing_is_left([left], folder)
    finally:
        with suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)


# --- what is looked at ---


async def beginning(client: Client) -> None:
    """Wait until some tokens of its answer have come; they stay unread."""
    while b" 3" not in client.unread:
        data = await client.read_some()
        assert data
        client.unread += data


async def to_the_end(client: Client) -> None:
    """Read whatever still comes."""
    while await client.read_some():
        pass


async def refuses(llamasup: Llamasup) -> bool:
    """Does it let nobody in?"""
    try:
        async with llamasup.connect():
            return False
    except OSError:
        return True


def engines(program: Program) -> list[int]:
    """The pids of everything that it has started."""
    return [child.pid for child in psutil.Process(program.process.pid).children(recursive=True)]


def pids(journal: Journal) -> list[int]:
    """The pids of every fake engine that was started."""
    return [entry["pid"] for entry in journal.entries("started")]


def nothing_is_left(family: list[int], folder: Path) -> None:
    assert [pid for pid in family if is_alive(pid)] == []
    assert list((folder / "run").iterdir()) == []
