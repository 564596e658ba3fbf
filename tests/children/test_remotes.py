"""RPC servers are called cheaply, all at once, and hold up nothing that waits for others."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
import trio

from llamasup.children import remotes
from llamasup.children.remotes import Remotes
from llamasup.memory.gauge import Gauge
from llamasup.memory.machine import ThisMachine
from tests.harness import out_of_descriptors


@pytest.fixture
def known() -> Remotes:
    return Remotes(Gauge(ThisMachine()))


@pytest.fixture
def answers() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def refuses() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def hangs() -> Iterator[str]:
    """One whose queue of callers is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        where = listener.getsockname()
        callers = [socket.socket() for _ in range(4)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(where)
        yield f"127.0.0.1:{where[1]}"
        for caller in callers:
            caller.close()


async def test_those_that_answer_are_told_in_their_order(
    known: Remotes, answers: str, refuses: str
) -> None:
    named = answers.replace("127.0.0.1", "localhost")
    assert await known.answering([named, refuses, answers]) == (named, answers)
    assert known.why_silent(refuses) == "Connection refused"
    assert known.why_silent(answers) == ""


async def test_those_that_hang_are_waited_for_once_and_together(
    known: Remotes, answers: str, hangs: str
) -> None:
    others = ("gone.invalid:1", hangs)
    with trio.fail_after(remotes._PATIENCE * 1.9):
        assert await known.answering([*others, answers]) == (answers,)
    with trio.fail_after(remotes._LASTS / 2):
        assert await known.answering([*others, answers]) == (answers,)
    assert "no answer" in known.why_silent(hangs)
    assert known.why_silent("gone.invalid:1")


async def test_one_that_answers_again_is_found_when_it_is_asked_anew(
    known: Remotes, refuses: str
) -> None:
    assert await known.answering([refuses]) == ()
    with socket.create_server(("127.0.0.1", int(refuses.rpartition(":")[2]))):
        assert await known.answering([refuses]) == ()
        assert await known.answering([refuses], anew=True) == (refuses,)


async def test_one_that_serves_a_child_of_ours_is_not_called(refuses: str) -> None:
    gauge = Gauge(ThisMachine())
    gauge.occupied = {refuses}
    assert await Remotes(gauge).answering([refuses]) == (refuses,)


async def test_a_shortage_of_ours_says_nothing_about_a_server(known: Remotes, answers: str) -> None:
    with out_of_descriptors():
        assert await known.answering([answers]) == (answers,)
