"""The queue for one model's slots, as a table and against a model of it that counts turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import thread_time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from llamasup.pool.queue import Crowded, FairQueue, Ticket


def drained(queue: FairQueue[str]) -> str:
    return " ".join(queue.pop() for _ in range(len(queue)))


def filled(*items: str, size: int = 100) -> FairQueue[str]:
    """`filled("a1", "b1:5")`: keys are letters, and what follows a colon is the priority."""
    queue = FairQueue[str](size)
    for item in items:
        name, _, priority = item.partition(":")
        queue.push(name, key=name[0], priority=int(priority or 0))
    return queue


@pytest.mark.parametrize(
    ("pushed", "popped"),
    [
        ("a1 a2 a3", "a1 a2 a3"),
        ("a1 a2 a3 b1 b2 c1", "a1 b1 c1 a2 b2 a3"),
        ("a1 b1:1 c1:2", "c1 b1 a1"),
        ("a1:1 a2 b1 a3:1 b2:1", "a1 b2 a3 a2 b1"),
        ("a1:-1 b1", "b1 a1"),
    ],
)
def test_priority_comes_first_then_keys_take_turns_then_it_is_first_come(
    pushed: str, popped: str
) -> None:
    assert drained(filled(*pushed.split())) == popped


def test_a_key_that_comes_back_has_its_turn_after_those_who_wait() -> None:
    queue = filled("a1", "b1", "c1")
    assert queue.pop() == "a1"
    queue.push("a2", "a")
    assert drained(queue) == "b1 c1 a2"


def test_no_more_may_wait_than_the_queue_has_places_for() -> None:
    queue = filled("a1", "b1", size=2)
    with pytest.raises(Crowded):
        queue.push("c1", "c", priority=9)
    queue.pop()
    queue.push("c1", "c")
    assert drained(queue) == "b1 c1"


def test_whoever_leaves_costs_nobody_a_turn_and_cannot_leave_twice() -> None:
    queue = filled("a1", "b1")
    leaving = queue.push("a2", "a")
    queue.push("a3", "a")
    queue.remove(leaving)
    with pytest.raises(KeyError):
        queue.remove(leaving)
    assert drained(queue) == "a1 b1 a3"
    with pytest.raises(KeyError):
        queue.remove(leaving)


def test_nobody_is_next_in_an_empty_queue() -> None:
    with pytest.raises(IndexError):
        FairQueue[str](1).pop()


class Waiting(RuleBasedStateMachine):
    """Whatever comes and goes: nobody is lost, passed by, or told a wrong position."""

    tickets = Bundle[Ticket[int]]("tickets")
    SIZE = 12

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue[int](self.SIZE)
        self.waiting: list[Ticket[int]] = []
        self.overtaken: Counter[tuple[Ticket[int], str]] = Counter()
        self.before: dict[Ticket[int], int] = {}
        self.pushed = 0

    @rule(target=tickets, key=st.sampled_from("abcd"), priority=st.integers(0, 2))
    def push(self, key: str, priority: int) -> object:
        self.pushed += 1
        if len(self.waiting) == self.SIZE:
            with pytest.raises(Crowded):
                self.queue.push(self.pushed, key, priority)
            return multiple()
        ticket = self.queue.push(self.pushed, key, priority)
        self.before[ticket] = sum(
            other.key == key and other.priority == priority for other in self.waiting
        )
        self.waiting.append(ticket)
        return ticket

    @rule()
    def pop(self) -> None:
        if not self.waiting:
            return
        item = self.queue.pop()
        taken = next(ticket for ticket in self.waiting if ticket.item == item)
        self.waiting.remove(taken)
        for other in self.waiting:
            assert other.priority <= taken.priority
            if other.priority == taken.priority:
                self._passed_by(other, taken)

    def _passed_by(self, waits: Ticket[int], taken: Ticket[int]) -> None:
        if waits.key == taken.key:
            assert waits.item > taken.item, "first come, first served"
        else:
            self.overtaken[waits, taken.key] += 1
            assert self.overtaken[waits, taken.key] <= self.before[waits] + 1, "keys take turns"

    @rule(ticket=consumes(tickets))
    def leave(self, ticket: Ticket[int]) -> None:
        if ticket in self.waiting:
            self.waiting.remove(ticket)
            self.queue.remove(ticket)
        else:
            with pytest.raises(KeyError):
                self.queue.remove(ticket)

    @invariant()
    def all_are_counted_and_each_has_a_position_of_its_own(self) -> None:
        assert len(self.queue) == len(self.waiting)
        positions = sorted(self.queue.position(ticket) for ticket in self.waiting)
        assert positions == list(range(len(self.waiting)))

    def teardown(self) -> None:
        """The positions come true."""
        by_position = sorted(self.waiting, key=self.queue.position)
        assert [self.queue.pop() for _ in by_position] == [t.item for t in by_position]


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def seconds(deed: Callable[[], object]) -> float:
    begun = thread_time()
    deed()
    return thread_time() - begun


def test_ten_times_as_many_take_about_ten_times_as_long() -> None:
    def come_and_go(number: int) -> None:
        queue = FairQueue[int](number)
        tickets = [queue.push(i, key=str(i % 7)) for i in range(number)]
        for ticket in tickets[::2]:
            queue.remove(ticket)
        for _ in range(len(queue)):
            queue.pop()

    small = min(seconds(lambda: come_and_go(3_000)) for _ in range(5))
    large = min(seconds(lambda: come_and_go(30_000)) for _ in range(3))
    assert large < 40 * small  # were it quadratic, it would be 100 times
