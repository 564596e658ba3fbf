"""One endpoint: its instances come and go with its name, and are asked how they are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from llamasup.config.addresses import Address, TcpAddress
from llamasup.config.schema import EndpointSettings
from llamasup.config.urls import Url
from llamasup.endpoints import names
from llamasup.endpoints.endpoint import Endpoint
from llamasup.endpoints.names import Found
from llamasup.events import InstanceChanged, Journal, NameLost
from tests.endpoints.answering import answering
from tests.endpoints.elsewhere import free_port
from tests.harness import eventually

MODELS = {"/v1/models": (200, {"data": [{"id": "a"}]})}


@asynccontextmanager
async def running(url: str, **entry: Any) -> AsyncIterator[tuple[Endpoint, list[object]]]:
    """An endpoint, and what it tells."""
    told: list[object] = []
    journal = Journal()
    settings = EndpointSettings("box", url, **entry)
    endpoint = Endpoint(settings, "me", journal, lambda: None, lambda: None)
    with journal.heard_by(told.append, InstanceChanged, NameLost):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(endpoint.run)
            yield endpoint, told
            nursery.cancel_scope.cancel()


def meaning(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets which addresses a name has; at first, none."""
    found: list[tuple[Address, ...]] = []

    async def look_up(url: Url) -> Found:
        await trio.lowlevel.checkpoint()
        if not found:
            raise OSError(None, "DNS knows nothing")
        return Found(list(found), 1)

    def mean(*addresses: TcpAddress) -> None:
        found[:] = [(address,) for address in addresses]

    monkeypatch.setattr(names, "look_up", look_up)
    return mean


async def test_it_has_one_instance_with_its_own_name() -> None:
    async with answering(MODELS) as (address, _), running(f"http://{address}") as (endpoint, told):
        await eventually(lambda: told)
        [instance] = endpoint.instances
        assert (instance.name, list(instance.offers)) == ("box", ["a"])
        assert not endpoint.may_have_more
    assert told == [InstanceChanged("box", "healthy", "")]


async def test_a_name_s_addresses_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    mean = meaning(monkeypatch)
    async with (
        answering(MODELS) as (one, _),
        answering(MODELS) as (two, _),
        running("dns+http://gpus:80") as (endpoint, told),
    ):
        await eventually(lambda: told)
        assert told == [NameLost("box", "DNS knows nothing")]
        assert endpoint.may_have_more
        mean(one, two)
        await eventually(lambda: len([i for i in endpoint.instances if i.was_known]) == 2)
        mean(two)
        await eventually(lambda: [i.name for i in endpoint.instances] == [f"box@{two}"])
        assert told[-1] == InstanceChanged(f"box@{one}", "gone", "its name names others")


async def test_an_instance_that_cannot_be_reached_has_its_name_looked_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mean = meaning(monkeypatch)
    mean(TcpAddress("127.0.0.1", free_port()))
    async with answering(MODELS) as (address, _), running("http://box") as (endpoint, _told):
        await eventually(lambda: endpoint.instances)
        mean(address)
        await eventually(lambda: endpoint.instances[0].was_known)


async def test_authorities_that_cannot_be_read_are_told() -> None:
    async with running("https://box", ca_file="/nonexistent") as (endpoint, told):
        await eventually(lambda: told)
        assert "/nonexistent cannot be used" in endpoint.trouble


async def test_models_stay_known_when_all_addresses_are_others_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mean = meaning(monkeypatch)
    async with answering(MODELS) as (one, _), running("dns+http://gpus:80") as (endpoint, _told):
        mean(one)
        await eventually(lambda: [list(i.offers) for i in endpoint.instances] == [["a"]])
        mean(TcpAddress("127.0.0.1", free_port()))
        await eventually(lambda: one not in endpoint.instances[0].addresses)
        [instance] = endpoint.instances
        assert list(instance.offers) == ["a"]
        assert not instance.is_usable(trio.current_time())
