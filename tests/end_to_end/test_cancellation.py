"""A client leaves, and whatever was done for it ends at once.

At whatever point it leaves, and however: within 100 ms its engine's connection is closed, its
lease is free, and no task of its is left. When the connection closed, the fake engine's journal
tells, by the same clock as ours. The median of some departures counts: a hiccup of a busy machine
is not our delay.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from attrs import frozen
from trio.testing import wait_all_tasks_blocked

from llamasup.models.demo import reciting_model
from tests.harness import (
    Client,
    Journal,
    Llamasup,
    chat,
    counted,
    eventually,
    request,
    running,
    tasks,
)

CHAT = "/v1/chat/completions"
AT_ONCE = 0.1
DEPARTURES = 3

Leave = Callable[[Client], None]
Fake = Callable[..., Mapping[str, object]]


@pytest.fixture(
    params=[Client.leave_by_fin, Client.leave_by_reset, Client.leave_by_half_close],
    ids=["fin", "reset", "half-close"],
)
def leave(request: pytest.FixtureRequest) -> Leave:
    """A way to leave."""
    chosen: Leave = request.param
    return chosen


async def test_leaving_while_the_engine_reads_the_prompt(
    faking: Fake, journal: Journal, leave: Leave
) -> None:
    async with running(faking("--fake-first-byte-delay", "0.7")) as llamasup:
        rest = await tasks_once_loaded(llamasup)
        departures = []
        for number in range(DEPARTURES):
            async with llamasup.connect() as client:
                await client.send(request("POST", CHAT, chat(3)))
                await eventually(lambda before=number: len(chats(journal)) > before)
                departures.append(await departure(client, leave, rest))
        assert median(d.seconds for d in departures) < AT_ONCE
        assert median(await delays_at_the_engine(departures, journal)) < AT_ONCE
        await serves_on(llamasup)


async def test_leaving_in_the_middle_of_a_stream(
    faking: Fake, journal: Journal, leave: Leave
) -> None:
    async with running(faking("--fake-token-delay", "0.005")) as llamasup:
        rest = await tasks_once_loaded(llamasup)
        departures = []
        for _ in range(DEPARTURES):
            async with llamasup.connect() as client:
                await client.send(request("POST", CHAT, chat(100_000)))
                await client.read_until(b" 5")
                departures.append(await departure(client, leave, rest))
        assert median(d.seconds for d in departures) < AT_ONCE
        assert median(await delays_at_the_engine(departures, journal)) < AT_ONCE
        await serves_on(llamasup)


async def test_leaving_in_the_middle_of_an_answer_in_one_piece(
    faking: Fake, journal: Journal, leave: Leave
) -> None:
    """It is larger than all buffers on its way: the engine still sends when the client leaves."""
    async with running(faking()) as llamasup:
        rest = await tasks_once_loaded(llamasup)
        departures = []
        for _ in range(DEPARTURES):
            async with llamasup.connect() as client:
                await client.send(request("POST", CHAT, chat(1_500_000, stream=False)))
                await client.read_until(b" 5")
                await wait_all_tasks_blocked(0.02)
                departures.append(await departure(client, leave, rest))
        assert median(d.seconds for d in departures) < AT_ONCE
        assert median(await delays_at_the_engine(departures, journal)) < AT_ONCE
        await serves_on(llamasup)


async def test_leaving_the_queue(faking: Fake, journal: Journal, leave: Leave) -> None:
    async with (
        running(faking("--fake-token-delay", "0.1")) as llamasup,
        llamasup.connect() as first,
    ):
        await first.send(request("POST", CHAT, chat(100_000)))
        await first.read_until(b" 0")
        rest = await tasks_when_all_wait()
        departures = []
        for _ in range(DEPARTURES):
            async with llamasup.connect() as client:
                await client.send(request("POST", CHAT, chat(3)))
                await eventually(lambda: somebody_queues(llamasup))
                departures.append(await departure(client, leave, rest))
        assert median(d.seconds for d in departures) < AT_ONCE
        assert await work(llamasup) == {"in_flight": 1, "slots_taken": 1, "waiting": 0}
        assert len(chats(journal)) == 1
        first.leave_by_fin()
        await serves_on(llamasup)


async def test_leaving_the_queue_after_a_comment(
    faking: Fake, journal: Journal, leave: Leave
) -> None:
    config = {**faking("--fake-token-delay", "0.1"), "server.keepalive_after": "0.1s"}
    async with running(config) as llamasup, llamasup.connect() as first:
        await first.send(request("POST", CHAT, chat(100_000)))
        await first.read_until(b'" 0"')
        rest = await tasks_when_all_wait()
        departures = []
        for _ in range(DEPARTURES):
            async with llamasup.connect() as client:
                await client.send(request("POST", CHAT, chat(3)))
                await client.read_until(b": waiting ")
                departures.append(await departure(client, leave, rest))
                assert await work(llamasup) == {"in_flight": 1, "slots_taken": 1, "waiting": 0}
        assert median(d.seconds for d in departures) < AT_ONCE
        assert len(chats(journal)) == 1
        first.leave_by_fin()
        await serves_on(llamasup)


async def test_a_client_that_leaves_during_a_load_leaves_it_to_the_others(
    faking: Fake, journal: Journal, leave: Leave
) -> None:
    async with (
        running(faking("--fake-load-seconds", "1")) as llamasup,
        llamasup.connect() as patient,
    ):
        await patient.send(request("POST", CHAT, chat(3)))
        await journal.first("started")
        rest = await tasks_when_all_wait()
        departures = []
        for _ in range(DEPARTURES):
            async with llamasup.connect() as client:
                await client.send(request("POST", CHAT, chat(3)))
                assert await tasks_when_all_wait() != rest
                departures.append(await departure(client, leave, rest))
        assert not journal.entries("ready")
        assert median(d.seconds for d in departures) < AT_ONCE
        assert (await patient.reply()).text() == counted(3)
        assert len(journal.entries("started")) == len(chats(journal)) == 1


async def test_a_client_that_closed_only_its_own_side_sees_that_its_answer_is_cut(
    faking: Fake,
) -> None:
    async with (
        running(faking("--fake-token-delay", "0.005")) as llamasup,
        llamasup.connect() as client,
    ):
        await client.send(request("POST", CHAT, chat(100_000)))
        await client.read_until(b" 5")
        client.leave_by_half_close()
        assert await client.read_until(b"\r\n0\r\n\r\n") == b""


# --- real engines ---


async def test_an_engine_stops_to_decode_when_the_client_leaves_its_stream(
    counting: dict[str, object], leave: Leave
) -> None:
    async with running(counting) as llamasup, llamasup.connect() as client:
        await client.send(request("POST", CHAT, chat(30_000, ignore_eos=True)))
        await client.read_until(b" 5")
        assert await is_processing(llamasup)
        leave(client)
        await eventually(lambda: is_idle(llamasup), within=3)
        assert await counter(llamasup, "tokens_predicted_total") < 30_000
        await serves_on(llamasup)


WORD = f" word-{'x' * 42}"
LONG = 45_000  # words: some seconds of reading, where the engine looks for its client once a second


async def test_an_engine_stops_to_read_a_prompt_when_the_client_leaves(
    engine: str, tmp_path: Path
) -> None:
    model = tmp_path / "wordy.gguf"
    model.write_bytes(reciting_model([WORD, " end"], context=LONG + 1000, name="wordy"))
    config = {
        "engine.command": engine,
        "models.wordy.path": str(model),
        "models.wordy.threads": 1,
        "models.wordy.batch_size": 256,
        "models.wordy.context_size": LONG + 1000,
    }
    async with running(config) as llamasup:
        async with llamasup.connect() as client:
            prompt = [{"role": "user", "content": WORD * LONG}]
            await client.send(request("POST", CHAT, chat(1, messages=prompt)))
            await eventually(lambda: is_processing(llamasup))
            client.leave_by_fin()
        await serves_on(llamasup)
        assert await counter(llamasup, "prompt_tokens_total") < LONG


# --- leaving, and what is looked at ---


async def tasks_once_loaded(llamasup: Llamasup) -> list[str]:
    """The tasks there are when the model is loaded and nothing is asked."""
    assert (await llamasup.ask("GET", "/props?autoload=true")).status == 200
    return await tasks_when_all_wait()


async def tasks_when_all_wait() -> list[str]:
    await wait_all_tasks_blocked(0.02)
    return tasks()


@frozen
class Departure:
    """When a client left, and how long it took until no task of its was left."""

    at: float
    seconds: float


async def departure(client: Client, leave: Leave, rest: list[str]) -> Departure:
    """Leave, and wait until only the tasks of `rest` are left."""
    left = time.monotonic()
    leave(client)
    await eventually(lambda: tasks() == rest)
    return Departure(left, time.monotonic() - left)


async def delays_at_the_engine(departures: list[Departure], journal: Journal) -> list[float]:
    """How long after each departure the engine found its connection closed."""
    await eventually(lambda: len(journal.entries("client closed")) == len(departures))
    closings = journal.entries("client closed")
    return [closed["at"] - left.at for closed, left in zip(closings, departures, strict=True)]


async def serves_on(llamasup: Llamasup) -> None:
    """Nothing is held, and the next request is answered."""
    assert (await llamasup.ask("POST", CHAT, chat(1))).events()[-1] == "[DONE]"
    await wait_all_tasks_blocked(0.02)
    assert await work(llamasup) == {"in_flight": 0, "slots_taken": 0, "waiting": 0}


async def work(llamasup: Llamasup) -> dict[str, int]:
    """What the only model's child has to do."""
    (model,) = (await llamasup.status())["models"]
    child = model["child"]
    return {
        "in_flight": child["in_flight"],
        "slots_taken": child["slots_taken"],
        "waiting": model["waiting"],
    }


async def somebody_queues(llamasup: Llamasup) -> bool:
    return (await work(llamasup))["waiting"] == 1


def chats(journal: Journal) -> list[dict[str, Any]]:
    """The chat requests that have reached the fake engine."""
    return [entry for entry in journal.entries("request") if entry["target"] == CHAT]


async def is_processing(llamasup: Llamasup) -> bool:
    """Does the engine work on anything?"""
    reply = await llamasup.ask("GET", "/slots")
    return reply.status == 200 and any(slot["is_processing"] for slot in reply.json())


async def is_idle(llamasup: Llamasup) -> bool:
    return not await is_processing(llamasup)


async def counter(llamasup: Llamasup, name: str) -> int:
    """One of the engine's own metrics."""
    metrics = (await llamasup.ask("GET", "/metrics")).body.decode()
    found = re.search(rf"^llamacpp:{name} (\d+)", metrics, re.MULTILINE)
    assert found, metrics
    return int(found[1])
