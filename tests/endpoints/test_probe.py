"""A look at an instance: what each answer makes of it."""

from __future__ import annotations

import pytest
import trio

from llamasup.config.addresses import TcpAddress
from llamasup.config.schema import EndpointSettings
from llamasup.endpoints.health import Condition
from llamasup.endpoints.instance import Instance
from llamasup.endpoints.probe import look
from tests.endpoints.answering import Answers, answering
from tests.endpoints.elsewhere import free_port
from tests.harness import loop_holdups

MODELS = (200, {"data": [{"id": "a.gguf"}]})


def instance_at(address: TcpAddress, key: str = "") -> Instance:
    return Instance("box", EndpointSettings("box", f"http://{address}/base", key=key), [address])


def under(base: str, answers: Answers) -> Answers:
    return {base + path: answer for path, answer in answers.items()}


async def looked_at(answers: Answers) -> Instance:
    async with answering(under("/base", answers)) as (address, _):
        instance = instance_at(address)
        await look(instance, "me", trio.current_time())
        return instance


@pytest.mark.parametrize(
    ("answers", "condition", "why"),
    [
        ({"/v1/models": MODELS}, Condition.HEALTHY, ""),
        ({"/v1/models": (503, {"error": "Loading model"})}, Condition.LOADING, ""),
        ({"/v1/models": MODELS, "/props": (503, "Loading model")}, Condition.LOADING, ""),
        ({"/v1/models": (401, {})}, Condition.REFUSING, "it refuses our key"),
        ({"/v1/models": MODELS, "/props": (401, {})}, Condition.REFUSING, "it refuses our key"),
        ({"/v1/models": (500, "oh")}, Condition.REFUSING, 'GET /v1/models: 500 "oh"'),
        ({"/v1/models": (200, b"<html>")}, Condition.REFUSING, "that is no list of models"),
        ({}, Condition.REFUSING, "404"),
    ],
)
async def test_an_answer_decides_its_condition(
    answers: Answers, condition: Condition, why: str
) -> None:
    instance = await looked_at(answers)
    assert instance.health.condition is condition
    assert why in instance.health.why


@pytest.mark.parametrize(
    ("answers", "slots"),
    [
        ({"/props": (200, {"total_slots": 3})}, 3),
        ({"/slots": (200, [{}, {}])}, 2),
        ({"/props": (200, {}), "/slots": (501, {})}, None),
    ],
)
async def test_a_llama_server_tells_its_slots(answers: Answers, slots: int | None) -> None:
    instance = await looked_at({"/v1/models": MODELS, **answers})
    assert instance.slots == slots
    assert instance.offers.keys() == {"a"}


async def test_nobody_there_is_unreachable() -> None:
    instance = instance_at(TcpAddress("127.0.0.1", free_port()))
    assert await look(instance, "me", trio.current_time())
    assert instance.health.condition is Condition.UNREACHABLE
    assert "refused" in instance.health.why


async def test_its_own_key_and_our_name_are_told() -> None:
    async with answering({}) as (address, heads):
        await look(instance_at(address, key="secret"), "me", trio.current_time())
    assert all("Authorization: Bearer secret\r\n" in head for head in heads)
    assert all("Via: 1.1 me\r\n" in head for head in heads)


async def test_a_llamasup_tells_more_and_is_recognised_when_it_is_ourselves() -> None:
    offers = {"instance": "they", "version": 7, "models": {"a": {"slots": 2}}}
    async with answering({"/base/api/offers": (200, offers)}) as (address, heads):
        instance = instance_at(address)
        await look(instance, "me", trio.current_time())
        assert (instance.llamasup, instance.version) == ("they", 7)
        assert instance.offers["a"].slots == 2
        await look(instance, "me", trio.current_time())
        assert "GET /base/api/offers?since=7&wait=10 " in heads[-1]
        await look(instance, "they", trio.current_time())
        assert instance.health.condition is Condition.REFUSING
        assert not instance.offers


async def test_an_instance_that_serves_requests_need_not_answer_questions() -> None:
    instance = instance_at(TcpAddress("127.0.0.1", free_port()))
    instance.served()
    assert not await look(instance, "me", instance.last_served)
    assert instance.health.condition is Condition.HEALTHY


async def test_thousands_of_models_hold_nobody_up() -> None:
    models = [{"id": f"model-{number}"} for number in range(4000)]
    offers = {"instance": "they", "version": 7, "models": {m["id"]: {} for m in models}}
    for answers in ({"/v1/models": (200, {"data": models})}, {"/api/offers": (200, offers)}):
        async with answering(under("/base", answers)) as (address, _):
            instance = instance_at(address)
            with loop_holdups() as holdups:
                await look(instance, "me", trio.current_time())
                await trio.lowlevel.checkpoint()
                assert holdups.longest("test_thousands") < 0.006
            assert len(instance.offers) == 4000
