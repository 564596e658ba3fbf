"""A request that ends the engine answers for itself: neither the model nor the others do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

import pytest
import trio

from tests.harness import Journal, Llamasup, Reply, chat, counted, eventually, request, running

Fake = Callable[..., Mapping[str, object]]

CHAT = "/v1/chat/completions"
CRASHES = ["--fake-die-at-byte", "-1", "--fake-death", "crash"]
POISON = {"prompt": "x", "n_predict": 4, "grammar": "root ::= " + "(" * 500_000}
"""llama.cpp reads grammars recursively. 20,000 are the end of a llama-server's stack."""


async def poison(llamasup: Llamasup, **more: object) -> Reply:
    return await llamasup.ask("POST", "/completion", {**POISON, **more})


async def test_a_real_engine_that_a_request_ends_answers_all_others(
    counting: dict[str, object],
) -> None:
    async with running(counting) as llamasup:
        answers: list[Reply] = []

        async def ask() -> None:
            answers.append(await llamasup.ask("POST", CHAT, chat(30, stream=False)))

        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poison, llamasup)
                for _ in range(4):
                    nursery.start_soon(ask)
        assert [reply.status for reply in answers] == [200] * 12
        refused = await poison(llamasup)
        assert (refused.status, refused.error["code"]) == (422, "request_kills_engine")
        assert "ended the engine 2 times" in refused.error["message"]
        loads = (await llamasup.model_status("count"))["loads"]
        assert loads == 3  # the first one, and one for each of two deaths
        reply = await llamasup.ask("POST", CHAT, chat(10))
        assert reply.text() == counted(10)


async def test_one_client_with_ever_new_poison_takes_no_model_from_the_others(
    faking: Fake, journal: Journal
) -> None:
    deadly = faking(*CRASHES, "--fake-die-if", "poison", parallel=4)
    async with running({**deadly, "recovery.patience": 3}) as llamasup:
        for number in range(6):
            body = chat(3, stream=False, user=f"poison {number}")
            key = {"Authorization": "Bearer villain"}
            bad = await llamasup.ask("POST", CHAT, body, key)
            assert bad.status == 422
            good = await llamasup.ask("POST", CHAT, chat(5))
            assert good.text() == counted(5)
        # Two for each at first, then one: what such a client sends is not tried twice.
        assert len(journal.entries("died")) == 2 + 2 + 4


async def test_a_death_that_no_request_has_caused_condemns_none(
    faking: Fake, journal: Journal
) -> None:
    async with running(faking("--fake-first-byte-delay", "0.5")) as llamasup:
        async with trio.open_nursery() as nursery:
            replies: list[Reply] = []

            async def ask() -> None:
                replies.append(await llamasup.ask("POST", CHAT, chat(5)))

            nursery.start_soon(ask)
            pid = (await journal.first("request"))["pid"]
            os.kill(pid, signal.SIGKILL)
        assert replies[0].text() == counted(5)
        assert (await llamasup.ask("POST", CHAT, chat(5))).status == 200


@pytest.mark.parametrize("size", [100, 3 << 20])
async def test_what_was_convicted_is_refused_without_the_engine(
    faking: Fake, journal: Journal, size: int
) -> None:
    deadly = faking(*CRASHES, "--fake-die-if", "poison")
    body = chat(3, user="poison" + "x" * size)
    async with running(deadly) as llamasup:
        for _ in range(3):
            reply = await llamasup.ask("POST", CHAT, body)
            assert (reply.status, reply.error["code"]) == (422, "request_kills_engine")
        assert reply.headers["retry-after"]
    assert len(journal.entries("died")) == 2


async def test_a_request_whose_client_left_at_once_is_suspected_as_well(
    faking: Fake, journal: Journal
) -> None:
    body = chat(3, user="poison")
    deadly = faking(*CRASHES, "--fake-die-if", "poison", "--fake-first-byte-delay", "0.3")
    async with running(deadly) as llamasup:
        async with llamasup.connect() as client:
            await client.send(request("POST", CHAT, body))
            await eventually(lambda: CHAT in [r["target"] for r in journal.entries("request")])
            # The kernel forgets who that was.
            client.leave_by_reset()
            await journal.first("client closed")
        os.kill(journal.entries("request")[-1]["pid"], signal.SIGSEGV)
        reply = await llamasup.ask("POST", CHAT, body)
        assert (reply.status, reply.error["code"]) == (422, "request_kills_engine")
        assert "ended the engine 2 times" in reply.error["message"]
    assert len(journal.entries("died")) == 1


def arrivals(journal: Journal, words: str) -> list[int]:
    """The engines that were asked something with these words."""
    return [entry["pid"] for entry in journal.entries("request") if words in entry["body"]]


async def test_what_was_lost_by_the_doing_of_another_is_sent_again_beside_what_may_be(
    faking: Fake, journal: Journal
) -> None:
    deadly = faking(
        *CRASHES, "--fake-die-if", "poison", "--fake-first-byte-delay", "0.5", parallel=4
    )
    async with running({**deadly, "recovery.max_replays": 1}) as llamasup:
        replies: dict[str, Reply] = {}

        async def ask(user: str, urgency: str = "u=3") -> None:
            body = chat(5, stream=False, user=user)
            replies[user] = await llamasup.ask("POST", CHAT, body, {"Priority": urgency})

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "poison", "u=0")
            await eventually(lambda: arrivals(journal, "poison"))
            nursery.start_soon(ask, "innocent")
            await eventually(lambda: arrivals(journal, "innocent"))
            os.kill(arrivals(journal, "innocent")[0], signal.SIGSEGV)
            await eventually(lambda: len(arrivals(journal, "innocent")) == 2)
            assert replies["poison"].status == 422
            os.kill(arrivals(journal, "innocent")[-1], signal.SIGSEGV)
        assert replies["innocent"].status == 200
    assert len(set(arrivals(journal, "innocent"))) == 3
