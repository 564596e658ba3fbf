"""The watchdog takes progress for life: it ends what does not move, and nothing that does."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count, repeat
from pathlib import Path
from textwrap import dedent

import pytest
import trio
from trio.testing import MockClock

from llamasup.children import effort, probe
from llamasup.children.manners import LlamaServer
from llamasup.children.plan import Plan
from llamasup.children.watchdog import watch
from llamasup.config.addresses import Address, UnixAddress
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Bytes, Config, EngineSettings, Recovery, Seconds
from llamasup.engine.failures import Cause, Kind
from llamasup.states import ChildState
from tests.harness import FAKE_PROGRAM, Journal, chat, counted, eventually, running

Fake = Callable[..., Mapping[str, object]]

CHAT = "/v1/chat/completions"
RECOVERY = Recovery(stall_timeout=Seconds(100), health_interval=Seconds(30))
HOUR = 3600


class StubChild:
    """A child as the watchdog sees it, which answers as it is told and notes what is done to it."""

    def __init__(self) -> None:
        self.users = 0
        self.blocked_by_clients = 0
        self.last_progress = trio.current_time()
        self.pid: int | None = os.getpid()
        self.address: Address = UnixAddress("/nowhere.sock")
        self.manners = LlamaServer()
        self.answers: Iterator[bytes | None] = iter(lambda: b"always the same", b"")
        """To each question; None is silence."""

        self.statuses: Iterator[int] = repeat(200)
        self.computed: Iterator[float | None] = repeat(0.0)
        """Seconds until now, each time that somebody looks; None if nobody can say."""

        self.unaskable = False
        """For a shortage of ours."""

        self.asked: list[str] = []
        self.stopped: Cause | None = None
        self.retired: Cause | None = None
        self._life = trio.CancelScope()

    async def ask(self, address: Address, target: str) -> tuple[int, bytes]:
        await trio.lowlevel.checkpoint()
        assert address == self.address
        if self.unaskable:
            raise probe.NotAsked("Too many open files")
        self.asked.append(target)
        answer = next(self.answers)
        if answer is None:
            await trio.sleep_forever()
        return next(self.statuses), answer

    async def spent(self, session: int) -> float | None:
        await trio.lowlevel.checkpoint()
        assert session == self.pid
        return next(self.computed)

    def stop(self, cause: Cause | None = None) -> None:
        self.stopped = cause
        self._life.cancel()

    def retire(self, cause: Cause) -> None:
        self.retired = cause
        self._life.cancel()

    async def watched(self, most_memory: int = 0, seconds: float = HOUR) -> float:
        """Be watched for so long, or until something is done; after how many seconds it was."""
        engine = EngineSettings(max_child_memory=Bytes(most_memory))
        began = trio.current_time()
        with trio.move_on_after(seconds), self._life:
            await watch(self, InEffect(Config(engine=engine, recovery=RECOVERY)))
        return trio.current_time() - began


# The clock jumps only for tests that name it themselves.
@pytest.fixture
async def child(monkeypatch: pytest.MonkeyPatch) -> StubChild:
    stub = StubChild()
    monkeypatch.setattr(probe, "ask", stub.ask)
    monkeypatch.setattr(effort, "spent", stub.spent)
    return stub


# --- nobody uses it ---


async def test_an_idle_child_is_asked_for_its_health_now_and_then(
    autojump_clock: MockClock, child: StubChild
) -> None:
    await child.watched()
    assert child.asked == ["/health"] * 119
    assert (child.stopped, child.retired) == (None, None)


async def test_an_idle_child_that_is_deaf_twice_in_a_row_hangs(
    autojump_clock: MockClock, child: StubChild
) -> None:
    child.answers = iter([b"well", None, b"well", None, None])
    await child.watched()
    assert child.stopped == Cause(Kind.HANG, "it does not answer any more")
    assert next(child.answers, "no more") == "no more"


async def test_a_child_that_refuses_to_be_asked_is_as_good_as_deaf(
    autojump_clock: MockClock, child: StubChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(address: Address, target: str) -> tuple[int, bytes]:
        raise probe.NoAnswer("nobody listens")

    monkeypatch.setattr(probe, "ask", refuse)
    assert await child.watched() == 60
    assert child.stopped is not None


@pytest.mark.parametrize("users", [0, 1])
async def test_a_child_that_we_have_no_means_to_ask_is_asked_when_we_have(
    autojump_clock: MockClock, child: StubChild, users: int
) -> None:
    child.users = users
    child.unaskable = True
    child.answers = iter([b"some tokens", None, None])

    async def end_the_shortage() -> None:
        await trio.sleep(HOUR / 2)
        assert (child.asked, child.stopped) == ([], None)
        child.unaskable = False

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_the_shortage)
        assert HOUR / 2 < await child.watched() < HOUR
    assert child.stopped is not None


# --- somebody uses it ---


async def test_a_child_that_makes_progress_is_left_in_peace(
    autojump_clock: MockClock, child: StubChild
) -> None:
    child.users = 1

    async def work() -> None:
        while True:
            await trio.sleep(RECOVERY.stall_timeout - 1)
            child.last_progress = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await child.watched()
        nursery.cancel_scope.cancel()
    assert child.asked == []
    assert child.stopped is None


async def test_a_silent_child_whose_slots_move_is_busy(
    autojump_clock: MockClock, child: StubChild
) -> None:
    child.users = 1
    child.answers = (b"%d tokens" % number for number in count())
    await child.watched()
    assert set(child.asked) == {"/slots"}
    assert child.stopped is None


async def test_a_silent_child_whose_slots_do_not_move_hangs(
    autojump_clock: MockClock, child: StubChild
) -> None:
    child.users = 1
    assert await child.watched() == 150
    assert child.asked == ["/slots", "/slots"]
    assert child.stopped == Cause(Kind.HANG, "it did not move for 150 s")


async def test_a_silent_child_that_does_not_tell_of_its_slots_hangs(
    autojump_clock: MockClock, child: StubChild
) -> None:
    child.users = 1
    child.answers = iter([b"some tokens", None])
    await child.watched()
    assert child.stopped is not None
    assert child.stopped.kind is Kind.HANG


async def test_slots_that_look_as_they_did_before_some_progress_are_no_hang(
    autojump_clock: MockClock,
    child: StubChild,
) -> None:
    child.users = 1

    async def move_once() -> None:
        await trio.sleep(RECOVERY.stall_timeout + 10)
        child.last_progress = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(move_once)
        assert await child.watched() == 110 + 150
    assert child.asked == ["/slots"] * 3


async def test_a_child_that_is_idle_again_is_not_blamed_for_its_silence(
    autojump_clock: MockClock, child: StubChild
) -> None:
    child.users = 1

    async def finish() -> None:
        await trio.sleep(RECOVERY.stall_timeout + 10)
        child.users = 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(finish)
        await child.watched()
    assert child.asked[:2] == ["/slots", "/health"]
    assert child.stopped is None


async def test_the_watch_is_over_when_it_has_stopped_a_child_that_died_while_it_was_asked(
    autojump_clock: MockClock, child: StubChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its users need a moment to leave, and whoever asks it is refused without any waiting.
    asked = 0

    async def refuse(address: Address, target: str) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        assert asked < 10, "nobody else would ever run again"
        raise probe.NoAnswer("nobody listens")

    monkeypatch.setattr(probe, "ask", refuse)
    child.users = 1
    await child.watched()
    assert child.stopped is not None
    assert asked == 1


@pytest.mark.parametrize("status", [401, 501])
async def test_a_child_that_may_not_tell_of_its_slots_is_judged_by_what_it_computes(
    autojump_clock: MockClock, child: StubChild, status: int
) -> None:
    child.users = 1
    child.statuses = repeat(status)
    child.computed = count(0.0, 10.0)
    assert await child.watched(seconds=5 * RECOVERY.stall_timeout) == 500
    assert child.stopped is None


async def test_a_child_that_computes_one_batch_for_long_and_does_not_answer_lives(
    autojump_clock: MockClock, child: StubChild
) -> None:
    child.users = 1
    child.answers = repeat(None)
    child.computed = count(0.0, 10.0)
    await child.watched(seconds=5 * RECOVERY.stall_timeout)
    assert child.stopped is None


async def test_a_child_that_stops_computing_hangs_as_long_after_that(
    autojump_clock: MockClock, child: StubChild
) -> None:
    child.users = 1
    child.answers = repeat(None)
    child.computed = chain([0.0, 10.0, 20.0, 30.0], repeat(30.0))
    assert 300 <= await child.watched() < 400
    assert child.stopped is not None


async def test_a_child_that_spins_for_nothing_is_ended_at_last(
    autojump_clock: MockClock, child: StubChild
) -> None:
    child.users = 1
    child.computed = count(0.0, 100.0)
    assert 1200 <= await child.watched() < 1300
    assert child.stopped is not None
    assert child.stopped.words.endswith("though it was busy")


# --- its memory ---


@pytest.fixture
def leak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamasup.children.watchdog.anonymous_memory", lambda pid: 3 << 30)


MODEST = 2 << 30


@pytest.mark.usefixtures("leak")
async def test_a_child_that_holds_too_much_memory_is_retired(
    autojump_clock: MockClock, child: StubChild
) -> None:
    assert await child.watched(MODEST) == 30
    assert child.retired == Cause(Kind.FINISHED, "it holds 3072 MiB, and may hold 2048")


@pytest.mark.usefixtures("leak")
async def test_a_child_that_holds_too_much_memory_is_not_retired_while_it_is_used(
    autojump_clock: MockClock,
    child: StubChild,
) -> None:
    child.users = 1
    child.answers = (b"%d tokens" % number for number in count())

    async def finish() -> None:
        await trio.sleep(1000)
        child.users = 0

    async with trio.open_nursery() as nursery:
        nursery.start_soon(finish)
        assert await child.watched(MODEST) > 1000
    assert child.retired is not None


@pytest.mark.usefixtures("leak")
@pytest.mark.parametrize("limit", [0, 3 << 30])
async def test_memory_within_the_limit_or_without_one_is_no_concern(
    autojump_clock: MockClock, child: StubChild, limit: int
) -> None:
    await child.watched(limit)
    assert child.retired is None


# --- real children ---

IMPATIENT = {"recovery.stall_timeout": 0.5, "recovery.health_interval": 0.05}

QUIRKS = {
    "pings": """
        def generate(self, script, path, request):
            self.send_head(
                200, "text/event-stream", "Transfer-Encoding: chunked", "Connection: close"
            )
            while True:
                self.pause(0.05)
                self.send_chunk(b":\\n\\n")

        fake.Handler.generate = generate
    """,
    "logs its prefill": """
        plain = fake.Handler.generate

        def generate(self, script, path, request):
            for step in range(20):
                self.pause(0.1)
                self.server.log.line(
                    "slot print_timing: id  0 | task 0 | prompt processing,"
                    f" n_tokens = {step}, progress = 0.{step:02}, t = 1.00 s"
                )
            plain(self, script, path, request)

        fake.Handler.generate = generate
    """,
    "counts in its slots": """
        counter = itertools.count()
        plain = fake.FakeServer.facts
        fake.FakeServer.facts = lambda self: plain(self) | {"/slots": [{"n": next(counter)}]}
    """,
}


@pytest.fixture
def with_quirk(tmp_path: Path) -> Callable[[str], str]:
    """The command of a fake engine that has one of the quirks."""

    def with_quirk(quirk: str) -> str:
        program = tmp_path / "quirky.py"
        program.write_text(
            "import itertools, sys\n"
            f"sys.path.insert(0, {str(FAKE_PROGRAM.parent)!r})\n"
            "import llama_server as fake\n"
            f"{dedent(QUIRKS[quirk])}\n"
            "fake.main(sys.argv[1:])\n"
        )
        return shlex.join([sys.executable, str(program)])

    return with_quirk


async def test_green_health_does_not_save_a_child_whose_slots_are_wedged(
    faking: Fake, journal: Journal
) -> None:
    wedged = faking("--fake-first-byte-delay", "60", "--fake-scripted-lives", "1")
    async with running({**wedged, **IMPATIENT}) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(5))
        assert reply.text() == counted(5)
    assert len(journal.entries("started")) == 2
    assert "/slots" in [entry["target"] for entry in journal.entries("request")]


async def test_pings_are_no_progress(faking: Fake, with_quirk: Callable[[str], str]) -> None:
    config = {
        **faking(),
        "engine.command": with_quirk("pings"),
        **IMPATIENT,
    }
    async with running(config) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(5))
        # It was tried again, and hung again.
        assert "request_kills_engine" in reply.events()[-1]
        assert reply.complete

        async def is_explained() -> bool:
            failure = (await llamasup.model_status("fake"))["last_failure"]
            return failure is not None and "it did not move" in failure

        await eventually(is_explained)


async def test_a_prefill_that_logs_its_progress_is_no_hang(
    faking: Fake, journal: Journal, with_quirk: Callable[[str], str]
) -> None:
    config = {
        **faking(),
        "engine.command": with_quirk("logs its prefill"),
        **IMPATIENT,
    }
    async with running(config) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(5))
        assert reply.text() == counted(5)
    assert len(journal.entries("started")) == 1


async def test_an_answer_in_one_piece_is_no_hang_while_its_slot_counts(
    faking: Fake, journal: Journal, with_quirk: Callable[[str], str]
) -> None:
    config = {
        **faking("--fake-first-byte-delay", "1.5"),
        "engine.command": with_quirk("counts in its slots"),
        **IMPATIENT,
    }
    async with running(config) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(5, stream=False))
        assert reply.status == 200
    assert len(journal.entries("started")) == 1


async def test_the_watch_ends_with_its_child(
    faking: Fake, planning: Callable[[Mapping[str, object]], Plan], journal: Journal
) -> None:
    plan = planning({**faking(), "recovery.health_interval": 0.02})
    child = await plan.child(plan.known_rungs[0])

    def healthy_looks() -> int:
        return [entry["target"] for entry in journal.entries("request")].count("/health")

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run)
            await eventually(lambda: healthy_looks() > 3)
            assert child.pid is not None
            os.kill(child.pid, signal.SIGKILL)
    assert child.state is ChildState.GONE
