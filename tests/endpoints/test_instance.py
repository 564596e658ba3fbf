"""An instance's room: by its slots, its health, and what others take of it."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from llamasup.config.addresses import TcpAddress
from llamasup.config.schema import EndpointSettings
from llamasup.endpoints.answers import Offer
from llamasup.endpoints.balance import Where
from llamasup.endpoints.health import Condition
from llamasup.endpoints.instance import Instance
from tests.endpoints.answering import answering
from tests.endpoints.elsewhere import free_port

HERE = TcpAddress("127.0.0.1", 1)


def healthy(offer: Offer, slots: int | None = None, **entry: Any) -> Instance:
    instance = Instance("box", EndpointSettings("box", "http://box", **entry), [HERE])
    instance.tells({"a": offer})
    instance.slots = slots
    instance.health.answered(0)
    return instance


@pytest.mark.parametrize(
    ("offer", "slots", "entry", "room"),
    [
        (Offer("a"), 3, {}, 3),
        (Offer("a"), None, {}, 8),
        (Offer("a"), 3, {"max_in_flight": 5}, 5),
        (Offer("a", slots=4, taken=3), None, {}, 1),
        (Offer("a", slots=4), None, {"max_in_flight": 2}, 2),
    ],
)
def test_its_room_is_what_it_tells_or_what_the_operator_says(
    offer: Offer, slots: int | None, entry: dict[str, Any], room: int
) -> None:
    assert healthy(offer, slots, **entry).candidate("a", 1).room == room


async def test_what_was_just_sent_counts_before_it_is_told() -> None:
    instance = healthy(Offer("a", slots=2, where=Where.FITS))
    instance.enter("a")
    candidate = instance.candidate("a", 1)
    assert (candidate.room, candidate.where) == (1, Where.LOADS)
    instance.leave("a")
    assert instance.candidate("a", 1).where is Where.FITS


async def test_our_own_requests_are_not_counted_twice_and_not_after_their_end() -> None:
    instance = healthy(Offer("a", slots=4))
    instance.enter("a")
    instance.enter("a")
    instance.leave("a")
    instance.tells({"a": Offer("a", slots=4, taken=3)})
    assert instance.candidate("a", 1).room == 4 - 1 - 1
    instance.leave("a")
    assert instance.candidate("a", 1).room == 4 - 1
    instance.tells({"a": Offer("a", slots=4, taken=1)})
    assert instance.candidate("a", 1).room == 4


async def test_a_failure_takes_all_room_and_has_it_asked_at_once() -> None:
    told: list[bool] = []
    instance = Instance(
        *("box", EndpointSettings("box", "http://box"), [HERE]),
        on_change=lambda _, is_news: told.append(is_news),
    )
    instance.offers = {"a": Offer("a")}
    instance.served()
    instance.failed("reset")
    assert told == [True, True]
    assert instance.health.condition is Condition.UNREACHABLE
    assert instance.nap.cancel_called
    assert instance.candidate("a", trio.current_time()).room <= 0


async def test_the_first_address_that_accepts_is_used() -> None:
    async with answering({}) as (address, _):
        entry = EndpointSettings("box", "http://box")
        with await Instance(
            "box", entry, [TcpAddress("127.0.0.1", free_port()), address]
        ).connect():
            pass
        with pytest.raises(ConnectionRefusedError):
            await Instance("box", entry, [TcpAddress("127.0.0.1", free_port())]).connect()
        with pytest.raises(OSError, match="no address"):
            await Instance("box", entry, []).connect()
