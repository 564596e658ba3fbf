"""Those in flight at a death are accused, and those that left shortly before it."""

from __future__ import annotations

import pytest
import trio

from llamasup.children.inquest import Inquest, may_be_a_requests_doing
from llamasup.children.suspects import Accused, Suspects
from llamasup.engine.failures import Cause, Kind

ONE = Accused(b"1", "client")
CRASH = Cause(Kind.CRASH, "it crashed")


def died(inquest: Inquest, suspects: Suspects, cause: Cause = CRASH) -> int:
    return inquest.conclude(cause, suspects)


async def test_a_client_that_left_shortly_before_is_accused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    inquest = Inquest()
    inquest.note_abandoned(Accused(b"0", "long gone"))
    await trio.sleep(6)
    inquest.note_abandoned(ONE)
    await trio.sleep(1)
    inquest.note_in_flight(users=2)
    assert inquest.in_flight == 3
    assert inquest.accused == [ONE]


async def test_deaths_are_laid_to_the_request_that_was_alone_at_each() -> None:
    suspects = Suspects()
    for death, explained in ((1, 0), (2, 2)):
        inquest = Inquest()
        inquest.note_in_flight(users=1)
        inquest.accused.append(ONE)
        assert died(inquest, suspects) == explained
        assert inquest.death == death
    assert suspects.is_explained(1)


async def test_a_kill_from_outside_is_no_sure_proof() -> None:
    suspects = Suspects()
    for _ in range(2):
        inquest = Inquest()
        inquest.note_in_flight(users=1)
        inquest.accused.append(ONE)
        assert died(inquest, suspects, Cause(Kind.KILLED, "killed")) == 0


@pytest.mark.parametrize(
    ("cause", "by_itself", "expected"),
    [
        (CRASH, True, True),
        (Cause(Kind.HANG, "it hangs"), False, True),
        (Cause(Kind.FINISHED, "finished"), True, False),
        (Cause(Kind.OUT_OF_MEMORY, "words", proven=False), True, True),
        (Cause(Kind.OUT_OF_MEMORY, "words", proven=False), False, False),
        (Cause(Kind.OUT_OF_MEMORY, "words", proven=True), True, False),
    ],
)
def test_a_request_may_be_to_blame(cause: Cause, by_itself: bool, expected: bool) -> None:
    assert may_be_a_requests_doing(cause, by_itself=by_itself) is expected
