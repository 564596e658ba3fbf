"""A model that is here and elsewhere: who is free first answers, and nothing is held twice."""

from __future__ import annotations

from pathlib import Path

import trio

from tests.endpoints.elsewhere import Elsewhere, asked
from tests.harness import Journal, chat, eventually, running
from tests.pool.pooling import Fake


async def test_a_loaded_child_comes_first_then_elsewhere_and_both_work(
    faking: Fake, journal: Journal, tmp_path: Path
) -> None:
    slow = ("--fake-first-byte-delay", "0.3")
    with Elsewhere(tmp_path, "box", *slow, model="fake.gguf") as box:
        await box.is_ready()
        config = {**faking(*slow), "endpoints": [box.entry]}
        async with running(config) as llamasup:
            await eventually(lambda: box.journal.entries("request"))
            await trio.sleep(0.1)
            statuses: list[int] = []
            await asked(llamasup, 8, chat(1, model="fake"), statuses)
            assert statuses == [200] * 8
            here = [e for e in journal.entries("request") if e["method"] == "POST"]
            assert len(here) + len(box.requests) == 8
            assert here
            assert box.requests
            box.kill()
            assert (await llamasup.ask("POST", "/v1/chat/completions", chat(1))).status == 200


async def test_clients_that_leave_while_both_are_waited_for_hold_nothing(
    faking: Fake, tmp_path: Path
) -> None:
    slow = ("--fake-first-byte-delay", "0.2")
    with Elsewhere(tmp_path, "box", *slow, model="fake.gguf") as box:
        await box.is_ready()
        config = {**faking(*slow), "endpoints": [box.entry]}
        async with running(config) as llamasup:
            statuses: list[int] = []
            for _ in range(4):
                with trio.move_on_after(0.15):
                    await asked(llamasup, 6, chat(1, model="fake"), [])
            with trio.fail_after(10):
                await asked(llamasup, 4, chat(1, model="fake"), statuses)
            assert statuses == [200] * 4


async def test_a_child_is_loaded_when_the_instance_that_had_room_is_gone(
    faking: Fake, tmp_path: Path
) -> None:
    with Elsewhere(tmp_path, "box", model="fake.gguf") as box:
        await box.is_ready()
        async with running({**faking(), "endpoints": [box.entry]}) as llamasup:
            await eventually(lambda: box.journal.entries("request"))
            await trio.sleep(0.1)
            box.kill()  # which is not known before the next question, or the next request
            with trio.fail_after(10):
                reply = await llamasup.ask("POST", "/v1/chat/completions", chat(1, model="fake"))
            assert reply.status == 200
