"""A death is explained by the last words, by its status, and by what the kernel has done."""

from __future__ import annotations

import signal

import pytest
import trio

from llamasup.children.autopsy import Autopsy
from llamasup.children.manners import LlamaServer, OtherServer
from llamasup.engine.failures import Kind

KILLED = -signal.SIGKILL


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the kernel has killed: the last one counts."""
    kills = [7]
    monkeypatch.setattr("llamasup.memory.host.oom_kills", lambda: kills[-1])
    return kills


async def test_words_explain_the_failure_of_a_load(kills: list[int]) -> None:
    autopsy = Autopsy(LlamaServer())
    autopsy.heard("error: invalid argument: --frobnicate")
    cause = autopsy.cause(1, was_ready=False)
    assert (cause.kind, cause.words) == (Kind.BAD_FLAG, "invalid argument: --frobnicate")
    assert autopsy.cause(1, was_ready=True).kind is not Kind.BAD_FLAG


async def test_only_the_last_words_are_kept() -> None:
    autopsy = Autopsy(LlamaServer())
    for number in range(1000):
        autopsy.heard(str(number))
    assert autopsy.tail[-1].text == "999"
    assert len(autopsy.tail) == 100


async def test_a_kill_is_the_kernels_if_it_has_just_killed(kills: list[int]) -> None:
    autopsy = Autopsy(LlamaServer())
    autopsy.look_for_kills()
    assert autopsy.cause(KILLED, was_ready=True).kind is Kind.KILLED
    kills.append(8)
    assert autopsy.cause(KILLED, was_ready=True).kind is Kind.OUT_OF_MEMORY
    assert autopsy.cause(-signal.SIGSEGV, was_ready=True).kind is not Kind.OUT_OF_MEMORY


async def test_what_has_no_rungs_is_told_to_say_what_it_takes(kills: list[int]) -> None:
    autopsy = Autopsy(OtherServer())
    autopsy.look_for_kills()
    kills.append(8)
    cause = autopsy.cause(KILLED, was_ready=True)
    assert cause.kind is Kind.OUT_OF_MEMORY
    assert "write what it takes as its `memory`" in cause.words


async def test_an_old_kill_of_the_kernels_explains_nothing(
    kills: list[int], autojump_clock: trio.testing.MockClock
) -> None:
    autopsy = Autopsy(LlamaServer())
    autopsy.look_for_kills()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(autopsy.keep_looking)
        kills.append(8)
        await trio.sleep(60)
        assert autopsy.cause(KILLED, was_ready=True).kind is Kind.KILLED
        nursery.cancel_scope.cancel()
