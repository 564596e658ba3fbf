"""The queue for one model's slots, as tables and against a model of it that counts turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count
from time import thread_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from llamasup.pool.queue import Client, Crowded, FairQueue, Ticket


def client(name: str) -> Client:
    """`client("a1")`: the letter is the place, a capital after it the key."""
    return Client(name[0], "".join(filter(str.isupper, name)))


def drained(queue: FairQueue[str]) -> str:
    return " ".join(queue.pop() for _ in range(len(queue)))


def filled(*items: str, size: int = 100) -> FairQueue[str]:
    """`filled("a1", "bK1:5")`: who is named as above, and what follows a colon is the priority."""
    queue = FairQueue[str](size)
    for item in items:
        name, _, priority = item.partition(":")
        queue.push(name, client(name), priority=int(priority or 0))
    return queue


@pytest.mark.parametrize(
    ("pushed", "popped"),
    [
        ("a1 a2 a3", "a1 a2 a3"),
        ("a1 a2 a3 b1 b2 c1", "a1 b1 c1 a2 b2 a3"),
        ("aK1 aK2 aL1 aM1 b1 b2", "aK1 b1 aL1 b2 aM1 aK2"),
    ],
)
def test_places_take_turns_then_their_keys_then_it_is_first_come(pushed: str, popped: str) -> None:
    assert drained(filled(*pushed.split())) == popped


@pytest.mark.parametrize(
    ("pushed", "popped"),
    [
        ("a1 b1:1 c1:2", "c1 a1 b1"),
        ("a1:-1 b1", "b1 a1"),
        ("a1 a2 a3:1 a4:1", "a3 a1 a4 a2"),
        ("aK1 aK2 aL1:1 aL2:1", "aL1 aK1 aL2 aK2"),
        ("b1 a1:3 a2:3 a3:3 b2", "a1 b1 a2 b2 a3"),
    ],
)
def test_every_other_turn_goes_to_an_urgent_request(pushed: str, popped: str) -> None:
    assert drained(filled(*pushed.split())) == popped


def turns_until_served(queue: FairQueue[str], honest: Client, flood: Callable[[], object]) -> int:
    """How many others are taken before a request of `honest`, while the flood goes on."""
    queue.push("honest", honest)
    for turn in count():
        if queue.pop() == "honest":
            return turn
        flood()
    raise AssertionError


@pytest.mark.parametrize("priority", [0, 3])
def test_invented_keys_and_urgency_buy_no_place_of_others(priority: int) -> None:
    queue = FairQueue[str](1000)
    names = count()

    def flood() -> None:
        queue.push("flood", Client("greedy", f"key {next(names)}"), priority)

    for _ in range(500):
        flood()
    waits = [turns_until_served(queue, Client("modest"), flood) for _ in range(50)]
    assert max(waits) <= 2
    assert sum(waits) <= 50 + 2


def test_at_one_place_urgency_buys_no_more_than_every_other_turn() -> None:
    queue = FairQueue[str](1000)

    def flood() -> None:
        queue.push("flood", Client("proxy", "greedy"), 3)

    for _ in range(500):
        flood()
    assert turns_until_served(queue, Client("proxy", "modest"), flood) <= 2


def test_a_place_that_comes_back_has_its_turn_after_those_that_wait() -> None:
    queue = filled("a1", "b1", "c1")
    assert queue.pop() == "a1"
    queue.push("a2", Client("a"))
    assert drained(queue) == "b1 c1 a2"


def test_no_more_may_wait_than_the_queue_has_places_for() -> None:
    queue = filled("a1", "b1", size=2)
    with pytest.raises(Crowded):
        queue.push("c1", Client("c"), priority=9)
    queue.pop()
    queue.push("c1", Client("c"))
    assert drained(queue) == "b1 c1"


@pytest.mark.parametrize(
    ("waiting", "comes", "goes"),
    [
        ("a1 a2 a3", "b1", "a3"),
        ("a1 a2 a3 b1", "b2", "a3"),
        ("aK1 aL1 aM1", "b1", "aM1"),
        ("aK1 aK2 aL1", "b1", "aK2"),
        ("b1 a1:3 a2:3 a3:3", "c1:-4", "a3"),
        ("aK1 aK2 aK3 aL1", "aL2", "aK3"),
        ("aK1 aK2 b1", "aL1", "aK2"),
        ("a1 a2 b1", "b2", None),
        ("a1 b1", "c1", None),
        ("a1 a2 a3", "a4:3", None),
        ("aK1 aL1", "aM1", None),
        ("", "a1", None),
    ],
)
def test_the_client_with_the_most_waiting_requests_loses_one_to_a_new_client(
    waiting: str, comes: str, goes: str | None
) -> None:
    queue = filled(*waiting.split())
    before = len(queue)
    try:
        gone = queue.displace(client(comes.partition(":")[0]))
    except Crowded:
        gone = None
    assert gone == goes
    assert len(queue) == before - (goes is not None)
    assert goes not in drained(queue).split()


def test_a_ticket_that_leaves_costs_no_other_a_turn_and_cannot_leave_twice() -> None:
    queue = filled("a1", "b1")
    leaving = queue.push("a2", Client("a"))
    queue.push("a3", Client("a"))
    queue.remove(leaving)
    with pytest.raises(KeyError):
        queue.remove(leaving)
    assert drained(queue) == "a1 b1 a3"
    with pytest.raises(KeyError):
        queue.remove(leaving)


def test_no_request_is_next_in_an_empty_queue() -> None:
    with pytest.raises(IndexError):
        FairQueue[str](1).pop()


clients = st.builds(Client, st.sampled_from("abc"), st.sampled_from("KL"))


@given(st.lists(st.tuples(clients, st.integers(-4, 3)), max_size=60), clients, st.data())
def test_no_client_starves_however_urgent_others_are(
    crowd: list[tuple[Client, int]], honest: Client, data: st.DataObject
) -> None:
    """Three places with two keys each: every turn but one in 2 * 3 * 2 * 2 may be another's."""
    queue = FairQueue[str](1000)
    for whose, priority in crowd:
        queue.push("crowd", whose, priority)
    before_it = sum(whose == honest for whose, _ in crowd)

    def flood() -> None:
        queue.push("crowd", *data.draw(st.tuples(clients, st.integers(-4, 3))))

    assert turns_until_served(queue, honest, flood) < 2 * 3 * 2 * 2 * 2 * (before_it + 1)


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

    @rule(target=tickets, client=clients, priority=st.integers(0, 2))
    def push(self, client: Client, priority: int) -> object:
        self.pushed += 1
        if len(self.waiting) == self.SIZE:
            with pytest.raises(Crowded):
                self.queue.push(self.pushed, client, priority)
            if not self._displaced(client):
                return multiple()
        ticket = self.queue.push(self.pushed, client, priority)
        self.before[ticket] = sum(other.client.place == client.place for other in self.waiting)
        self.waiting.append(ticket)
        return ticket

    def _displaced(self, client: Client) -> bool:
        places = Counter(ticket.client.place for ticket in self.waiting)
        lines = Counter(ticket.client for ticket in self.waiting)
        try:
            item = self.queue.displace(client)
        except Crowded:
            assert places[client.place] + 1 >= max(places.values())
            own = [line for line in lines if line.place == client.place]
            assert lines[client] + 1 >= max((lines[line] for line in own), default=0)
            return False
        gone = next(ticket for ticket in self.waiting if ticket.item == item)
        self.waiting.remove(gone)
        whose = gone.client
        assert whose != client
        assert whose.place == client.place or places[whose.place] == max(places.values())
        assert lines[whose] == max(n for line, n in lines.items() if line.place == whose.place)
        assert item > max((t.item for t in self.waiting if t.client == whose), default=0)
        return True

    @rule()
    def pop(self) -> None:
        if not self.waiting:
            return
        item = self.queue.pop()
        taken = next(ticket for ticket in self.waiting if ticket.item == item)
        self.waiting.remove(taken)
        for other in self.waiting:
            self._passed_by(other, taken)

    def _passed_by(self, waits: Ticket[int], taken: Ticket[int]) -> None:
        if waits.client == taken.client and waits.priority == taken.priority:
            assert waits.item > taken.item, "first come, first served"
        elif waits.client.place != taken.client.place:
            self.overtaken[waits, taken.client.place] += 1
            # Two keys at a place, of which each has one of two turns; of these one of two is
            # urgent; and of all the places' turns as well.
            most = 2 * 2 * 2 * 2 * (self.before[waits] + 1)
            assert self.overtaken[waits, taken.client.place] <= most, "places take turns"

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
        """Where nothing is more urgent, the positions come true."""
        by_position = sorted(self.waiting, key=self.queue.position)
        popped = [self.queue.pop() for _ in by_position]
        if len({ticket.priority for ticket in self.waiting}) == 1:
            assert popped == [ticket.item for ticket in by_position]
        assert sorted(popped) == sorted(ticket.item for ticket in by_position)


TestWaiting = Waiting.TestCase
TestWaiting.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def seconds(deed: Callable[[], object]) -> float:
    begun = thread_time()
    deed()
    return thread_time() - begun


@pytest.mark.parametrize("keys", [7, 1_000_000], ids=["few keys", "a key each"])
def test_ten_times_as_many_take_about_ten_times_as_long(keys: int) -> None:
    def come_and_go(number: int) -> None:
        queue = FairQueue[int](number)
        tickets = [
            queue.push(i, Client(str(i % 5), str(i % keys)), priority=i % 3) for i in range(number)
        ]
        for ticket in tickets[::2]:
            queue.remove(ticket)
        for i in range(number // 4):
            queue.displace(Client("new", str(i)))
        for _ in range(len(queue)):
            queue.pop()

    small = min(seconds(lambda: come_and_go(3_000)) for _ in range(5))
    large = min(seconds(lambda: come_and_go(30_000)) for _ in range(3))
    assert large < 40 * small  # were it quadratic, it would be 100 times


# --- by what was used ---


@pytest.mark.parametrize(
    ("pushed", "used", "popped"),
    [
        ("a1 b1 c1", {"a": 3, "b": 1, "c": 2}, "b1 c1 a1"),
        ("a1 a2 b1 b2", {"a": 1}, "b1 b2 a1 a2"),
        ("a1 a2 b1 b2", {}, "a1 b1 a2 b2"),
        ("aK1 aK2 aL1 b1", {"b": 1}, "aK1 aL1 aK2 b1"),
        ("a1:1 b1 c1:1", {"a": 2, "b": 0, "c": 1}, "c1 b1 a1"),
    ],
)
def test_who_used_least_goes_first_among_those_of_one_priority(
    pushed: str, used: dict[str, float], popped: str
) -> None:
    queue = filled(*pushed.split())
    order = [queue.pop(lambda place: used.get(str(place), 0.0)) for _ in range(len(queue))]
    assert " ".join(order) == popped


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), max_size=40),
    st.dictionaries(st.sampled_from("abcd"), st.floats(0, 1e9)),
)
def test_whatever_was_used_nobody_is_forgotten(
    pushed: list[tuple[str, int]], used: dict[str, float]
) -> None:
    queue = FairQueue[int](100)
    for number, (place, priority) in enumerate(pushed):
        queue.push(number, Client(place), priority)
    popped = [queue.pop(lambda place: used.get(str(place), 0.0)) for _ in pushed]
    assert sorted(popped) == list(range(len(pushed)))
    for place in "abcd":
        for priority in range(3):
            own = [n for n in popped if pushed[n] == (place, priority)]
            assert own == sorted(own)


def test_with_many_clients_choosing_by_what_was_used_takes_little_time() -> None:
    queue = FairQueue[int](1000)
    for number in range(256):
        queue.push(number, Client(str(number)))
    used = {str(number): float(number * 7919 % 257) for number in range(256)}
    began = thread_time()
    for _ in range(256):
        queue.pop(lambda place: used[str(place)])
    assert (thread_time() - began) / 256 < 0.0005
