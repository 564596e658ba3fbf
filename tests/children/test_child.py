"""A child is ready when it says so, fails in the engine's words, and leaves nothing behind."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import signal
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import pytest
import trio

from llamasup.children.child import Child, Launch
from llamasup.children.plan import Plan
from llamasup.config.addresses import TcpAddress, UnixAddress
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config, EngineSettings, Recovery, Seconds
from llamasup.engine.failures import Cause, Kind
from llamasup.processes.run_folder import RunFolder
from llamasup.states import ChildState
from tests.harness import Journal, eventually, is_alive, out_of_descriptors, running

Fake = Callable[..., Mapping[str, object]]
FirstChild = Callable[[Mapping[str, object]], Awaitable[Child]]

PROMPT = 0.1
"""Seconds from the engine's readiness to ours."""


@pytest.fixture
def first_child(planning: Callable[[Mapping[str, object]], Plan]) -> FirstChild:
    """The first child of a configuration's only model, not started."""

    async def first_child(config: Mapping[str, object]) -> Child:
        plan = planning(config)
        return await plan.child(plan.known_rungs[0])

    return first_child


def program(
    run_folder: RunFolder,
    *argv: str,
    address: TcpAddress | None = None,
    load_timeout: float = 20,
) -> Child:
    """A child that is any program."""
    return Child(
        Launch(
            model="any",
            argv=argv,
            environment=os.environ,
            address=address or UnixAddress(str(run_folder.next_socket())),
            slots=1,
            in_effect=InEffect(
                Config(
                    engine=EngineSettings(
                        load_timeout=Seconds(load_timeout), stop_grace=Seconds(10)
                    ),
                    recovery=Recovery(stall_timeout=Seconds(60), health_interval=Seconds(60)),
                )
            ),
        ),
        run_folder,
    )


@asynccontextmanager
async def living(child: Child) -> AsyncIterator[Child]:
    """The child, ready; stopped and gone at the end of the block."""
    async with trio.open_nursery() as nursery:
        await started(child, nursery)
        yield child
        child.stop()


async def started(child: Child, nursery: trio.Nursery) -> None:
    nursery.start_soon(child.run)
    with trio.fail_after(20):
        await child.settled.wait()
    assert child.ready_at < math.inf, child.cause


def exit_by_itself(child: Child) -> None:
    """Have it exit for a reason that llamasup does not know."""
    assert child.pid is not None
    os.kill(child.pid, signal.SIGTERM)


async def cause_of_failure(child: Child) -> str:
    """In words, why a child is gone that should never have got ready."""
    with trio.fail_after(20):
        await child.run()
    assert child.settled.is_set()
    assert child.state is ChildState.GONE
    assert child.ready_at == math.inf
    assert child.cause is not None
    return child.cause.words


def left_in(folder: RunFolder, pattern: str = "child-*") -> list[str]:
    return [found.name for found in folder.path.glob(pattern)]


# --- readiness ---


@pytest.mark.parametrize("dialect", ["current", "old", "jsonl"])
async def test_readiness_is_heard_at_once_in_every_dialect(
    dialect: str,
    faking: Fake,
    first_child: FirstChild,
    journal: Journal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for pause in ("_FIRST_PAUSE", "_LONGEST_PAUSE"):  # who only looks would come too late
        monkeypatch.setattr(f"llamasup.children.child.{pause}", 60.0)
    config = faking("--fake-dialect", dialect, "--fake-load-seconds", "0.3")
    children = [await first_child(config) for _ in range(3)]
    ready: dict[int | None, float] = {}

    async def start(child: Child) -> None:
        async with living(child):
            ready[child.pid] = time.monotonic()

    async with trio.open_nursery() as nursery:
        for child in children:
            nursery.start_soon(start, child)
    said = {entry["pid"]: entry["at"] for entry in journal.entries("ready")}
    # The best of three: the others may have shared their processor.
    assert min(at - said[pid] for pid, at in ready.items()) < PROMPT


async def test_an_engine_that_says_nothing_is_found_ready_by_looking(
    faking: Fake, first_child: FirstChild
) -> None:
    child = await first_child(faking("--fake-dialect", "silent", "--fake-load-seconds", "0.3"))
    with trio.fail_after(5):
        async with living(child):
            assert child.state is ChildState.READY


async def test_what_an_engine_says_does_not_make_it_ready_before_it_answers(
    run_folder: RunFolder,
) -> None:
    boasts = "print('main: server is listening on http://127.0.0.1:1', flush=True); input()"
    child = program(run_folder, sys.executable, "-c", boasts, load_timeout=0.5)
    assert "nothing was heard" in await cause_of_failure(child)


async def test_another_program_at_the_port_of_a_dead_child_does_not_make_it_ready(
    run_folder: RunFolder,
) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = TcpAddress("127.0.0.1", listener.socket.getsockname()[1])
    child = program(run_folder, "sleep", "60", address=address)

    async def answer_when_it_is_dead(stream: trio.SocketStream) -> None:
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        await eventually(lambda: child.state is not ChildState.STARTING)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer_when_it_is_dead, [listener])
        assert "killed by SIGKILL" in await cause_of_failure(child)
        nursery.cancel_scope.cancel()


async def test_the_engine_knows_best_how_many_slots_it_has(
    counting: dict[str, object], first_child: FirstChild
) -> None:
    child = await first_child({**counting, "models.count.extra_args": ["-np", "3"]})
    assert child.slots.size == 2
    async with living(child):
        # It may answer before what it logged has been read.
        await eventually(lambda: child.slots.size == 3)


# --- a flood of log lines ---


async def test_a_flood_of_log_lines_delays_neither_the_load_nor_other_tasks(
    faking: Fake, first_child: FirstChild
) -> None:
    child = await first_child(faking("--fake-flood", "100000"))
    delays = []

    async def tick() -> None:
        while True:
            before = trio.current_time()
            await trio.sleep(0.005)
            delays.append(trio.current_time() - before - 0.005)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        with trio.fail_after(15):
            async with living(child):
                nursery.cancel_scope.cancel()
    assert median(delays) < 0.05


async def test_an_answer_comes_through_a_flood_of_log_lines(faking: Fake) -> None:
    async with running(faking("--fake-flood", "100000")) as llamasup:
        reply = await llamasup.ask("POST", "/completion", {"n_predict": 3})
        assert reply.json()["content"] == " 0 1 2"


# --- loads that take long, and loads that never end ---


async def test_a_slow_load_goes_on_as_long_as_the_engine_says_something(
    faking: Fake, first_child: FirstChild
) -> None:
    slow = ("--fake-load-seconds", "2.5", "--fake-load-line-every", "0.1")
    child = await first_child({**faking(*slow), "engine.load_timeout": 1.5})
    async with living(child):
        assert child.state is ChildState.READY


async def test_a_silent_load_is_ended_and_the_message_says_why(
    faking: Fake, first_child: FirstChild, journal: Journal
) -> None:
    child = await first_child({**faking("--fake-never-ready"), "engine.load_timeout": 1})
    assert await cause_of_failure(child) == "nothing was heard of it for 1 s of loading"
    assert not is_alive(journal.entries("started")[0]["pid"])


async def test_a_load_is_no_failure_while_we_have_no_descriptor_to_ask_how_it_goes(
    faking: Fake, first_child: FirstChild, journal: Journal
) -> None:
    child = await first_child({**faking("--fake-load-seconds", "1"), "engine.load_timeout": 1})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.run)
        await journal.first("started")
        with out_of_descriptors():
            await eventually(lambda: trio.current_time() - child.last_progress > 1.5)
            assert (child.state, child.cause) == (ChildState.STARTING, None)
        await child.settled.wait()
        assert child.state is ChildState.READY
        child.stop()


async def test_a_load_that_is_stopped_is_over_and_has_no_cause(
    faking: Fake, first_child: FirstChild, journal: Journal
) -> None:
    child = await first_child(faking("--fake-never-ready"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.run)
        await journal.first("started")
        child.stop()
        await child.settled.wait()
        assert child.state is ChildState.GONE
    assert child.cause is None
    assert not is_alive(journal.entries("started")[0]["pid"])


# --- causes, in the engine's own words ---


def broken_model(kind: str, good: Path, bad: Path) -> Path:
    architecture = b"general.architecture" + struct.pack("<IQ", 8, 5)
    content = good.read_bytes()
    assert architecture + b"llama" in content
    if kind == "missing":
        return bad
    bad.write_bytes(
        {
            "no GGUF": b"this is no model, but a text long enough to look at" * 10,
            "cut": content[: len(content) * 2 // 3],
            "of tomorrow": content.replace(architecture + b"llama", architecture + b"llamx"),
        }[kind]
    )
    return bad


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", r"failed to open GGUF file '.*bad\.gguf' \(No such file or directory\)"),
        ("no GGUF", r"invalid magic characters"),
        ("cut", r"corrupted or incomplete"),
        ("of tomorrow", r"unknown model architecture: 'llamx'"),
    ],
)
async def test_a_model_that_cannot_be_loaded_is_explained_in_the_engines_words(
    kind: str,
    words: str,
    counting: dict[str, object],
    count_model: Path,
    first_child: FirstChild,
    tmp_path: Path,
    run_folder: RunFolder,
) -> None:
    model = broken_model(kind, count_model, tmp_path / "bad.gguf")
    child = await first_child({**counting, "models.count.path": str(model)})
    assert re.search(words, await cause_of_failure(child))
    assert left_in(run_folder) == []


async def test_a_flag_that_the_engine_does_not_know_is_named(
    counting: dict[str, object], first_child: FirstChild
) -> None:
    child = await first_child({**counting, "models.count.extra_args": ["--frobnicate"]})
    assert await cause_of_failure(child) == "invalid argument: --frobnicate"


async def test_a_program_that_is_not_there_is_named(run_folder: RunFolder) -> None:
    child = program(run_folder, "/nowhere/llama-server")
    message = await cause_of_failure(child)
    assert message == "/nowhere/llama-server cannot be run: No such file or directory"


async def test_a_killed_load_is_explained_by_its_signal(
    faking: Fake, first_child: FirstChild, journal: Journal
) -> None:
    child = await first_child(faking("--fake-never-ready"))
    async with trio.open_nursery() as nursery:

        async def kill() -> None:
            os.kill((await journal.first("started"))["pid"], signal.SIGKILL)

        nursery.start_soon(kill)
        assert "killed by SIGKILL" in await cause_of_failure(child)


async def test_a_child_that_the_kernel_kills_has_run_out_of_memory(
    faking: Fake, first_child: FirstChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = 7
    monkeypatch.setattr("llamasup.memory.host.oom_kills", lambda: kills)
    async with living(await first_child(faking())) as child:
        assert child.pid is not None
        kills = 8
        os.kill(child.pid, signal.SIGKILL)
        await eventually(lambda: child.state is ChildState.GONE)
    assert child.cause is not None
    assert child.cause.kind is Kind.OUT_OF_MEMORY
    assert child.cause.proven


async def test_a_killed_child_did_not_run_out_of_memory_because_another_process_did(
    faking: Fake, first_child: FirstChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel killed a browser last week; now an operator kills a child."""
    looks = kills = 7

    def look() -> int:
        nonlocal looks
        looks += 1
        return kills

    monkeypatch.setattr("llamasup.memory.host.oom_kills", look)
    monkeypatch.setattr("llamasup.memory.host._JUST_NOW", 0.1)
    monkeypatch.setattr("llamasup.children.autopsy._LOOKS_FOR_KILLS", 0.01)
    async with living(await first_child(faking())) as child:
        assert child.pid is not None
        kills, looked = 8, looks
        await eventually(lambda: looks > looked + 1)
        grew_at = trio.current_time()
        await eventually(lambda: trio.current_time() > grew_at + 0.2)
        os.kill(child.pid, signal.SIGKILL)
        await eventually(lambda: child.state is ChildState.GONE)
    assert child.cause is not None
    assert child.cause.kind is Kind.KILLED


# --- what clients have written into its log ---


@pytest.mark.parametrize("dialect", ["current", "old", "jsonl"])
async def test_a_start_in_the_words_of_a_client_is_none(
    faking: Fake, first_child: FirstChild, dialect: str
) -> None:
    said = [
        *("initializing slots, n_slots = 0", "I srv  x: initializing, n_slots = 0, n_ctx_slot = 1"),
        'cmd_child_to_router:state:{"state":"loading","payload":'
        '{"stages":["a"],"current":"a","value":0.1}}',
    ]
    child = await first_child(faking("--fake-dialect", dialect, parallel=2))
    async with living(child):
        progress = child.load_progress
        reply = await ask(child, {"grammar": "\n".join(said)})
        assert b"failed to parse grammar" in reply
        await eventually(lambda: any(said[1] in line.text for line in child._autopsy.tail))
        assert child.slots.size == 2
        assert child.load_progress == progress


async def ask(child: Child, body: Mapping[str, object]) -> bytes:
    """The child's answer to a completion, whole."""
    content = json.dumps(body).encode()
    assert isinstance(child.address, UnixAddress)
    async with await trio.open_unix_socket(child.address.path) as client:
        head = b"POST /completion HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        await client.send_all(head + b"Content-Length: %d\r\n\r\n" % len(content) + content)
        return b"".join([part async for part in client])


# --- retirement ---

WORN = Cause(Kind.OUT_OF_MEMORY, "worn out")


async def test_a_retired_child_admits_no_request_and_ends_after_the_last_one(
    faking: Fake, first_child: FirstChild
) -> None:
    async with living(await first_child(faking(parallel=2))) as child:
        child.enter()
        child.enter()
        child.retire(WORN)
        child.retire(Cause(Kind.CRASH, "somebody else suffers it, too"))
        assert not child.slots.free
        child.leave()
        assert await child.survived()
        assert child.state is ChildState.RETIRING
        child.leave()
        await eventually(lambda: child.state is ChildState.GONE)
    assert child.cause is WORN


async def test_a_retired_child_without_requests_ends_at_once(
    faking: Fake, first_child: FirstChild
) -> None:
    async with living(await first_child(faking())) as child:
        child.retire(WORN)
        await eventually(lambda: child.state is ChildState.GONE, within=5)


async def test_a_retirement_does_not_wait_for_ever(faking: Fake, first_child: FirstChild) -> None:
    async with living(await first_child(faking())) as child:
        child.enter()
        retired = trio.current_time()
        child.retire(WORN, patience=0.3)
        await eventually(lambda: child.state is ChildState.GONE)
        assert 0.3 <= trio.current_time() - retired < 5


async def test_a_retirement_can_be_hurried(faking: Fake, first_child: FirstChild) -> None:
    async with living(await first_child(faking())) as child:
        child.enter()
        child.retire(WORN)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert child.state is ChildState.RETIRING
        child.retire(WORN, patience=0)
        await eventually(lambda: child.state is ChildState.GONE, within=5)


async def test_a_child_that_still_loads_is_not_retired(run_folder: RunFolder) -> None:
    child = program(run_folder, "sleep", "60")
    child.retire(WORN)
    assert child.state is ChildState.STARTING
    assert child.cause is None


# --- the end ---


async def test_a_child_that_is_gone_leaves_no_socket_and_no_mark(
    faking: Fake, first_child: FirstChild, run_folder: RunFolder
) -> None:
    child = await first_child(faking())
    async with living(child):
        assert left_in(run_folder, "*.sock") == ["1.sock"]
        assert [mark.split("-")[1] for mark in left_in(run_folder)] == [str(child.pid)]
    assert child.state is ChildState.GONE
    assert left_in(run_folder, "*") == []


async def test_real_engines_stop_at_once(
    counting: dict[str, object], first_child: FirstChild
) -> None:
    child = await first_child({**counting, "engine.stop_grace": 15})
    async with living(child):
        stopped = trio.current_time()
    assert trio.current_time() - stopped < 2
    assert child.pid is not None
    assert not is_alive(child.pid)


async def test_a_child_that_ignores_term_is_killed_after_its_grace(
    faking: Fake, first_child: FirstChild, journal: Journal
) -> None:
    stubborn = faking("--fake-ignore-term", "--fake-ignore-stdin")
    child = await first_child({**stubborn, "engine.stop_grace": 0.3})
    async with living(child):
        stopped = trio.current_time()
    assert 0.3 <= trio.current_time() - stopped < 5
    assert journal.entries("signal")[0]["name"] == "SIGTERM"
    assert not is_alive(journal.entries("started")[0]["pid"])


async def test_a_child_that_hangs_is_granted_no_long_grace(
    faking: Fake, first_child: FirstChild
) -> None:
    stubborn = faking("--fake-ignore-term", "--fake-ignore-stdin")
    child = await first_child({**stubborn, "engine.stop_grace": 60})
    with trio.fail_after(10):
        async with living(child):
            child.stop(Cause(Kind.HANG, "it is deaf"))
    assert child.cause == Cause(Kind.HANG, "it is deaf")


async def test_a_cancelled_child_is_ended_before_its_task_returns(
    faking: Fake, first_child: FirstChild, journal: Journal
) -> None:
    child = await first_child(faking())
    async with trio.open_nursery() as nursery:
        await started(child, nursery)
        nursery.cancel_scope.cancel()
    assert child.state is ChildState.GONE
    assert not is_alive(journal.entries("started")[0]["pid"])


async def test_a_child_that_exits_by_itself_is_gone(
    faking: Fake, first_child: FirstChild, run_folder: RunFolder
) -> None:
    child = await first_child(faking())
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await started(child, nursery)
            exit_by_itself(child)
            await eventually(lambda: child.state is not ChildState.READY)
            assert not await child.survived()
    assert child.state is ChildState.GONE
    assert left_in(run_folder) == []


async def test_a_child_that_lives_has_survived(faking: Fake, first_child: FirstChild) -> None:
    async with living(await first_child(faking())) as child:
        assert await child.survived()


async def test_a_child_that_we_have_no_descriptor_to_ask_has_survived_for_all_we_know(
    faking: Fake, first_child: FirstChild
) -> None:
    async with living(await first_child(faking())) as child:
        with out_of_descriptors():
            assert await child.survived()
        assert child.state is ChildState.READY


async def test_a_child_that_ends_while_there_are_no_descriptors_is_cleared_away(
    faking: Fake, first_child: FirstChild, run_folder: RunFolder
) -> None:
    child = await first_child(faking())
    async with trio.open_nursery() as nursery:
        await started(child, nursery)
        with out_of_descriptors():
            exit_by_itself(child)
            await eventually(lambda: child.state is ChildState.GONE)
    assert left_in(run_folder) == []


async def test_the_last_words_of_a_child_that_is_stopped_are_heard(
    run_folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    talks_much = """
import os, signal, time
def say(*_):
    os.write(1, b"so many words\\n" * 50_000 + b"last words\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, say)
print("here", flush=True)
while True: time.sleep(0.01)
"""
    child = program(run_folder, sys.executable, "-c", talks_much)
    caplog.set_level(logging.DEBUG, "llamasup")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.run)
        await eventually(lambda: "here" in caplog.text)
        child.stop()
    assert "last words" in caplog.text
    assert "still there" not in caplog.text


@pytest.mark.parametrize("end", ["it is stopped", "it exits"])
async def test_a_grandchild_that_holds_the_pipes_neither_delays_the_end_nor_survives(
    end: str, faking: Fake, first_child: FirstChild, journal: Journal
) -> None:
    child = await first_child(faking("--fake-grandchild-holds-pipes"))
    async with trio.open_nursery() as nursery:
        await started(child, nursery)
        ended = trio.current_time()
        if end == "it is stopped":
            child.stop()
        else:
            exit_by_itself(child)
    assert trio.current_time() - ended < 4
    grandchild = journal.entries("grandchild")[0]["grandchild"]
    await eventually(lambda: not is_alive(grandchild))
