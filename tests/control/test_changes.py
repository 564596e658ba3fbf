"""Clients are told of every change of a model's state, until they leave or llamasup stops."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from llamasup import events
from llamasup.access.keyring import EVERYTHING, NOTHING
from llamasup.config.schema import KeySettings
from llamasup.control import changes
from llamasup.control.changes import COMMENT_AFTER, MOST_FOLLOWERS, Changes
from llamasup.control.listing import Standing
from llamasup.errors import Shortage
from llamasup.states import KeeperState
from tests.harness import Client, Llamasup, chat, counting_model, eventually, request, running

Fake = Callable[..., Mapping[str, object]]
CHAT = "/v1/chat/completions"


def every() -> KeySettings:
    return EVERYTHING


class Follower:
    """A client of `Changes`, without a network; it reads only when it is let."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.may_read = trio.Event()
        self.may_read.set()
        self.left = trio.Event()

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.may_read.wait()
        self.sent.append(message)

    @property
    def told(self) -> list[Any]:
        text = b"".join(message.get("body", b"") for message in self.sent).decode()
        return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]


class Stage:
    def __init__(self) -> None:
        self.journal = events.Journal()
        self.standings = {"a": Standing(KeeperState.UNLOADED)}
        self.stopping = trio.Event()
        self.changes = Changes(self.journal, self.standings.get, self.stopping)

    def move(self, model: str, state: KeeperState, progress: float | None = None) -> None:
        self.standings[model] = Standing(state, progress)
        self.journal.tell(events.StateChanged(model, state))


async def test_changes_are_told_in_the_words_of_llama_servers_router() -> None:
    stage, one = Stage(), Follower()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.changes.follow, every, one.receive, one.send)
        await wait_all_tasks_blocked()
        assert one.sent[0]["status"] == 200
        stage.move("a", KeeperState.LOADING, 0.5)
        await wait_all_tasks_blocked()
        stage.move("a", KeeperState.READY)
        await wait_all_tasks_blocked()
        del stage.standings["a"]
        stage.journal.tell(events.StateChanged("a", KeeperState.UNLOADED))
        await wait_all_tasks_blocked()
        stage.journal.tell(events.ModelsChanged())
        await wait_all_tasks_blocked()
        one.left.set()
    progress = {"stages": ["text_model"], "current": "text_model", "value": 0.5}
    assert one.told == [
        {
            "model": "a",
            "event": "model_status",
            "data": {"status": "loading", "progress": progress},
        },
        {"model": "a", "event": "model_status", "data": {"status": "loaded"}},
        {"model": "a", "event": "model_remove"},
        {"model": "*", "event": "models_reload"},
    ]


async def test_a_slow_client_gets_the_last_change_of_each_model() -> None:
    stage, slow = Stage(), Follower()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.changes.follow, every, slow.receive, slow.send)
        await wait_all_tasks_blocked()
        slow.may_read = trio.Event()
        for _ in range(1000):
            for model in ("a", "b"):
                stage.move(model, KeeperState.LOADING)
                stage.move(model, KeeperState.READY)
            await trio.lowlevel.checkpoint()
        slow.may_read.set()
        await wait_all_tasks_blocked()
        slow.left.set()
    assert len(slow.told) <= 4
    assert {one["model"]: one["data"]["status"] for one in slow.told} == {
        "a": "loaded",
        "b": "loaded",
    }


async def test_silence_is_filled_with_comments(mock_clock: MockClock) -> None:
    stage, one = Stage(), Follower()
    mock_clock.autojump_threshold = 0
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.changes.follow, every, one.receive, one.send)
        await trio.sleep(3 * COMMENT_AFTER + 1)
        one.left.set()
    assert [message["body"] for message in one.sent[1:-1]] == [b":\n\n"] * 4


async def test_the_stream_ends_cleanly_when_llamasup_stops() -> None:
    stage, one = Stage(), Follower()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.changes.follow, every, one.receive, one.send)
        await wait_all_tasks_blocked()
        stage.stopping.set()
    assert one.sent[-1] == {"type": "http.response.body", "body": b""}
    assert events.StateChanged not in stage.journal.heard


async def test_whose_key_is_taken_away_is_told_no_more() -> None:
    stage, one, key = Stage(), Follower(), KeySettings(models=("a",))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stage.changes.follow, lambda: key, one.receive, one.send)
        await wait_all_tasks_blocked()
        stage.move("a", KeeperState.LOADING)
        await wait_all_tasks_blocked()
        key = KeySettings(models=("b",))
        stage.move("a", KeeperState.READY)
        await wait_all_tasks_blocked()
        assert [told["data"]["status"] for told in one.told] == ["loading"]
        key = NOTHING
        stage.move("a", KeeperState.UNLOADED)
    assert len(one.told) == 1
    assert one.sent[-1] == {"type": "http.response.body", "body": b""}


async def test_too_many_followers_are_refused_until_one_leaves() -> None:
    stage, followers = Stage(), [Follower() for _ in range(MOST_FOLLOWERS)]
    async with trio.open_nursery() as nursery:
        for one in followers:
            nursery.start_soon(stage.changes.follow, every, one.receive, one.send)
        await wait_all_tasks_blocked()
        late = Follower()
        with pytest.raises(Shortage, match="64 others"):
            await stage.changes.follow(every, late.receive, late.send)
        followers[0].left.set()
        await wait_all_tasks_blocked()
        nursery.start_soon(stage.changes.follow, every, late.receive, late.send)
        await wait_all_tasks_blocked()
        assert late.sent
        stage.stopping.set()


# --- through the front ---


async def next_event(client: Client) -> Any:
    await client.read_until(b"data: ")
    return json.loads(await client.read_until(b"\n\n"))


async def test_a_client_follows_a_model_and_the_models(
    faking: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    config = {**faking(), "discover.folders": [str(folder)]}
    async with running(config) as llamasup, llamasup.connect() as client:
        await client.send(request("GET", "/models/sse"))
        status, headers = await client.head()
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        await llamasup.ask("POST", CHAT, chat(1, model="fake"))
        while (event := await next_event(client))["data"]["status"] != "loaded":
            assert event["data"]["status"] == "loading"
        counting_model(folder / "new.gguf", up_to=3)

        async def is_found() -> bool:
            return (await llamasup.ask("GET", "/v1/models/new")).status == 200

        await eventually(is_found)
        assert await next_event(client) == {"model": "*", "event": "models_reload"}


async def test_a_stream_of_changes_lasts_longer_than_control_may_take_for_an_answer(
    faking: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamasup.front.asking_control._PATIENCE", 0.1)
    monkeypatch.setattr(changes, "COMMENT_AFTER", 0.1)
    async with running(faking()) as llamasup, llamasup.connect() as client:
        await client.send(request("GET", "/models/sse"))
        for _ in range(5):
            assert await client.read_until(b":\n\n")


async def test_who_follows_is_forgotten_when_it_leaves(
    faking: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MOST_FOLLOWERS", 1)
    async with running(faking()) as llamasup:

        async def can_follow() -> bool:
            return await follows(llamasup)

        async with llamasup.connect() as client:
            await client.send(request("GET", "/models/sse"))
            await client.read_until(b":\n\n")
            assert not await can_follow()
        await eventually(can_follow)


async def follows(llamasup: Llamasup) -> bool:
    """May another client follow?"""
    async with llamasup.connect() as client:
        await client.send(request("GET", "/models/sse"))
        status, _ = await client.head()
        return status == 200


async def test_to_look_at_the_head_follows_nothing(
    faking: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "MOST_FOLLOWERS", 1)
    async with running(faking()) as llamasup, llamasup.connect() as client:
        await client.send(request("HEAD", "/models/sse"))
        assert (await client.reply(to_head=True)).status == 200

        async def can_follow() -> bool:
            return await follows(llamasup)

        await eventually(can_follow)
