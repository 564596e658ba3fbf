"""Many models in one memory: who is loaded, who goes, who waits, and who is told why not."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from llamasup.engine.locate import Program, locate
from tests.harness import (
    Client,
    Journal,
    Llamasup,
    chat,
    counted,
    eventually,
    request,
    running,
    script,
)

Fake = Callable[..., Mapping[str, object]]

CHAT = "/v1/chat/completions"


@pytest.fixture
def models(faking: Fake) -> Callable[..., dict[str, object]]:
    """Models a, b and c with one fake engine, and what else a configuration says."""

    def models(**more: object) -> dict[str, object]:
        tokens = ("--fake-token-delay", "0.01")
        several = [faking(*tokens, name=name) for name in ("a", "b", "c")]
        settings = {key.replace("__", "."): value for key, value in more.items()}
        return {key: value for model in several for key, value in model.items()} | settings

    return models


async def answer(llamasup: Llamasup, model: str, tokens: int = 3) -> str:
    reply = await llamasup.ask("POST", CHAT, chat(tokens, model=model))
    assert reply.status == 200, reply.body
    return reply.text()


async def loaded(llamasup: Llamasup) -> set[str]:
    status = await llamasup.status()
    return {model["name"] for model in status["models"] if model["state"] == "ready"}


@asynccontextmanager
async def streaming(llamasup: Llamasup, model: str, tokens: int) -> AsyncIterator[Client]:
    """A stream that has begun."""
    async with llamasup.connect() as client:
        await client.send(request("POST", CHAT, chat(tokens, model=model)))
        while b" 0" not in client.unread:
            client.unread += await client.read_some()
        yield client


def starts(journal: Journal) -> list[str]:
    """The models that were started, in order."""
    argvs = [entry["argv"] for entry in journal.entries("started")]
    return [argv[argv.index("--alias") + 1] for argv in argvs if "--alias" in argv] or [
        argv[argv.index("--model") + 1].rpartition("/")[2].removesuffix(".gguf") for argv in argvs
    ]


async def test_no_more_models_are_loaded_than_may_be_and_the_one_used_longest_ago_goes(
    models: Callable[..., dict[str, object]], journal: Journal
) -> None:
    async with running(models(pool__max_loaded_models=2)) as llamasup:
        for model in ("a", "b", "a", "c"):
            assert await answer(llamasup, model) == counted(3)
        assert await loaded(llamasup) == {"a", "c"}
        assert starts(journal) == ["a", "b", "c"]


async def test_a_model_that_is_answering_is_not_evicted_before_its_answer_has_ended(
    models: Callable[..., dict[str, object]],
) -> None:
    config = models(pool__max_loaded_models=1, pool__turn="0.1s")
    async with running(config) as llamasup, streaming(llamasup, "a", 60) as stream:
        assert await answer(llamasup, "b") == counted(3)
        assert (await stream.reply()).text() == counted(60)
        assert await loaded(llamasup) == {"b"}


async def test_steady_traffic_on_one_model_does_not_starve_another(
    models: Callable[..., dict[str, object]],
) -> None:
    config = models(pool__max_loaded_models=1, pool__turn="0.5s", models__a__parallel=4)
    async with running(config) as llamasup, trio.open_nursery() as nursery:

        async def steady() -> None:
            while True:
                assert await answer(llamasup, "a", 20) == counted(20)

        for _ in range(4):
            nursery.start_soon(steady)
        await eventually(lambda: loaded_is(llamasup, {"a"}))
        with trio.fail_after(10):
            assert await answer(llamasup, "b") == counted(3)
            # And a has its turn again: none of its requests was lost.
            await eventually(lambda: loaded_is(llamasup, {"a"}))
        nursery.cancel_scope.cancel()


async def loaded_is(llamasup: Llamasup, models: set[str]) -> bool:
    return await loaded(llamasup) == models


async def test_requests_for_a_model_that_loads_share_the_load(
    models: Callable[..., dict[str, object]], journal: Journal
) -> None:
    config = models(pool__max_loaded_models=1)
    async with running(config) as llamasup:
        await answer(llamasup, "a")
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(answer, llamasup, "b")
        assert starts(journal) == ["a", "b"]


async def test_a_client_that_leaves_while_its_model_waits_for_room_costs_no_model_its_place(
    models: Callable[..., dict[str, object]], journal: Journal
) -> None:
    config = models(pool__max_loaded_models=1)
    async with running(config) as llamasup, streaming(llamasup, "a", 50) as stream:
        async with llamasup.connect() as client:
            await client.send(request("POST", CHAT, chat(3, model="b")))
            await eventually(lambda: waits(llamasup, "b"))
        await eventually(lambda: nobody_waits(llamasup, "b"))
        assert (await stream.reply()).text() == counted(50)
        assert await answer(llamasup, "a") == counted(3)
        assert starts(journal) == ["a"]


async def waits(llamasup: Llamasup, model: str) -> bool:
    return bool((await llamasup.model_status(model))["waiting"])


async def nobody_waits(llamasup: Llamasup, model: str) -> bool:
    status = await llamasup.model_status(model)
    return (status["waiting"], status["state"]) == (0, "unloaded")


async def test_models_unload_after_their_own_idle_time_counted_from_the_last_request(
    models: Callable[..., dict[str, object]],
) -> None:
    config = models(
        pool__idle_unload="0.4s", models__b__idle_unload="0s", models__c__idle_unload="60s"
    )
    async with running(config) as llamasup:
        for model in ("a", "b", "c"):
            await answer(llamasup, model)
        async with streaming(llamasup, "a", 100) as stream:
            assert (await stream.reply()).text() == counted(100)
            assert await loaded(llamasup) == {"a", "b", "c"}
        await eventually(lambda: loaded_is(llamasup, {"b", "c"}))
        assert await answer(llamasup, "a") == counted(3)


async def test_a_model_that_may_not_be_unloaded_stays_and_others_are_told(
    models: Callable[..., dict[str, object]],
) -> None:
    config = models(
        pool__max_loaded_models=1, models__a__unloadable=False, pool__idle_unload="0.1s"
    )
    async with running(config) as llamasup:
        await answer(llamasup, "a")
        reply = await llamasup.ask("POST", CHAT, chat(3, model="b"))
        assert reply.status == 503
        assert "max_loaded_models is 1, and a will not be unloaded" in reply.error["message"]
        assert await loaded(llamasup) == {"a"}
        # That is no verdict on b: it is asked for as often as anybody likes, and never given up.
        for _ in range(6):
            assert (await llamasup.ask("POST", CHAT, chat(3, model="b"))).status == 503
        status = await llamasup.model_status("b")
        assert "max_loaded_models" in status["last_failure"]


async def test_a_preloaded_model_for_which_there_is_no_room_is_not_tried_again_and_again(
    models: Callable[..., dict[str, object]], caplog: pytest.LogCaptureFixture
) -> None:
    config = models(
        pool__max_loaded_models=1,
        pool__preload=["a", "b"],
        models__a__unloadable=False,
        models__b__unloadable=False,
    )
    async with running(config) as llamasup:
        await eventually(lambda: "could not be preloaded" in caplog.text)
        await eventually(lambda: loaded(llamasup))
        assert caplog.text.count("cannot be loaded") == 1


async def test_models_of_a_group_that_are_not_to_be_together_take_turns(
    models: Callable[..., dict[str, object]],
) -> None:
    config = models(groups__big__members=["a", "b"], groups__big__together=False)
    async with running(config) as llamasup:
        for model in ("a", "c", "b"):
            assert await answer(llamasup, model) == counted(3)
        assert await loaded(llamasup) == {"b", "c"}


async def test_a_preloaded_model_is_there_before_the_first_request_and_goes_when_it_has_to(
    models: Callable[..., dict[str, object]],
) -> None:
    config = models(pool__preload=["a"], pool__max_loaded_models=1)
    async with running(config) as llamasup:
        await eventually(lambda: loaded_is(llamasup, {"a"}))
        assert await answer(llamasup, "b") == counted(3)
        assert await loaded(llamasup) == {"b"}
        assert await answer(llamasup, "a") == counted(3)


async def test_a_crowd_on_many_models_with_room_for_two_is_answered_to_the_last(
    models: Callable[..., dict[str, object]],
) -> None:
    config = models(pool__max_loaded_models=2, pool__turn="0.2s")
    answers = []
    async with running(config) as llamasup:

        async def ask(model: str) -> None:
            answers.append(await answer(llamasup, model, 10))

        async with trio.open_nursery() as nursery:
            for _ in range(6):
                for model in ("a", "b", "c"):
                    nursery.start_soon(ask, model)
        assert answers == [counted(10)] * 18
        assert len(await loaded(llamasup)) <= 2


NO_ROOM_BESIDE_A = (
    *("--fake-fail-load", "failed to allocate buffer for kv cache"),
    *("--fake-fail-beside", "a"),
)


async def test_an_idle_model_goes_before_a_load_that_ran_out_of_memory_takes_less_context(
    faking: Fake, journal: Journal
) -> None:
    """By all that is known there is room for both. It is not so."""
    config = {**faking(name="a"), **faking(*NO_ROOM_BESIDE_A, name="b")}
    async with running(config) as llamasup:
        assert await answer(llamasup, "a") == counted(3)
        assert await answer(llamasup, "b") == counted(3)
        assert await loaded(llamasup) == {"b"}
        assert (await llamasup.model_status("b"))["loads"] == 2
    contexts = [
        entry["argv"][entry["argv"].index("--ctx-size") + 1]
        for entry in journal.entries("started")
        if any(word.endswith("/b.gguf") for word in entry["argv"])
    ]
    assert len(contexts) == 2
    assert contexts[0] == contexts[1]


async def test_what_did_not_fit_beside_a_busy_model_is_tried_again_when_that_idles(
    faking: Fake,
) -> None:
    slow = faking("--fake-token-delay", "0.01", name="a")
    config = {**slow, **faking(*NO_ROOM_BESIDE_A, name="b"), "recovery.patience": 1}
    async with running(config) as llamasup:
        async with streaming(llamasup, "a", 500):
            reply = await llamasup.ask("POST", CHAT, chat(3, model="b"))
            assert (reply.status, reply.error["code"]) == (503, "out_of_memory")
            reply = await llamasup.ask("POST", CHAT, chat(3, model="b"))
            assert int(reply.headers["retry-after"]) > 30
        assert await answer(llamasup, "b") == counted(3)
        assert await loaded(llamasup) == {"b"}


async def test_the_status_shows_which_models_wait_for_a_place(
    models: Callable[..., dict[str, object]],
) -> None:
    config = models(pool__max_loaded_models=1)
    async with (
        running(config) as llamasup,
        streaming(llamasup, "a", 500),
        llamasup.connect() as second,
    ):
        await second.send(request("POST", CHAT, chat(3, model="b")))

        async def is_seen() -> bool:
            return bool((await llamasup.model_status("b"))["state"] == "waiting for room")

        await eventually(is_seen)


async def test_a_model_larger_than_memory_is_tried_if_the_operator_says_so_and_alone(
    faking: Fake, tmp_path: Path
) -> None:
    config = {**faking(name="small"), **faking(name="large")}
    for name, size in (("small", 1 << 20), ("large", 1 << 42)):
        with (tmp_path / f"{name}.gguf").open("wb") as file:
            file.write(b"GGUF" + (4).to_bytes(4, "little"))  # only engines understand it
            file.truncate(size)
    async with running(config) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(3, model="large"))
        assert reply.status == 507
        assert "models.large.overcommit = true" in reply.error["message"]
    async with running({**config, "models.large.overcommit": True}) as llamasup:
        assert await answer(llamasup, "small") == counted(3)
        assert await answer(llamasup, "large") == counted(3)
        assert await loaded(llamasup) == {"large"}
        assert await answer(llamasup, "small") == counted(3)
        assert await loaded(llamasup) == {"small"}


async def test_a_request_that_finds_the_queue_full_is_told_to_come_again(
    models: Callable[..., dict[str, object]],
) -> None:
    async with (
        running(models(pool__max_queue=1)) as llamasup,
        streaming(llamasup, "a", 500),
        llamasup.connect() as second,
    ):
        await second.send(request("POST", CHAT, chat(3, model="a")))
        await eventually(lambda: waits(llamasup, "a"))
        reply = await llamasup.ask("POST", CHAT, chat(3, model="a"))
        assert (reply.status, reply.error["code"]) == (429, "queue_full")
        assert int(reply.headers["retry-after"]) >= 1


async def test_a_request_that_has_waited_too_long_is_told_so(
    models: Callable[..., dict[str, object]],
) -> None:
    config = models(pool__preload=["a"], pool__queue_timeout="0.3s")
    async with running(config) as llamasup:
        await eventually(lambda: loaded_is(llamasup, {"a"}))
        async with streaming(llamasup, "a", 500):
            reply = await llamasup.ask("POST", CHAT, chat(3, model="a"))
            assert (reply.status, reply.error["code"]) == (504, "queue_timeout")


class Looks:
    """Counts how often files are looked at, and in which thread."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.located = 0
        self.stats = 0
        self.on_loop = 0
        stat, loop = os.stat, threading.get_ident()

        def locating(*where: Any) -> Program:
            self.located += 1
            return locate(*where)

        def looking(path: Any, *more: Any, **options: Any) -> os.stat_result:
            if str(path).startswith(str(folder)):
                self.stats += 1
                self.on_loop += threading.get_ident() == loop
            return stat(path, *more, **options)

        monkeypatch.setattr(os, "stat", looking)
        monkeypatch.setattr("llamasup.engine.known.locate", locating)


async def test_a_survey_of_100_models_locates_the_engine_once_and_stats_each_file_twice(
    faking: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = script(
        tmp_path / "llama-server",
        'case "$*" in *--list-devices*) exec printf "Available devices:\\n  (none)\\n";; esac',
        '[ "$1" = --help ] && exec echo "--model --host --list-devices unix socket"',
        "echo version: 1",
    )
    several = [faking(name=f"m{number}") for number in range(100)]
    config = {key: value for model in several for key, value in model.items()}
    async with running({**config, "engine.command": engine}) as llamasup:
        await llamasup.ask("GET", "/modelFits")  # the first one reads all headers
        looks = Looks(tmp_path, monkeypatch)
        reply = await llamasup.ask("GET", "/modelFits")
        assert len(reply.json()["models"]) == 100
        assert (looks.located, looks.on_loop) == (1, 0)
        assert looks.stats <= 2 * 100 + 10  # of each its header and its size; of the engine a few
