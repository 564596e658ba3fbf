"""Children die and hang, and their clients see only time; or an error that is one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import trio

from tests.harness import Journal, Llamasup, chat, counted, eventually, request, running

Fake = Callable[..., Mapping[str, object]]


async def child_of(llamasup: Llamasup, model: str = "count") -> int:
    pid: int = (await llamasup.model_status(model))["child"]["pid"]
    return pid


async def loaded(llamasup: Llamasup) -> None:
    reply = await llamasup.ask("POST", "/v1/chat/completions", chat(1))
    assert reply.status == 200, reply.body


async def test_a_request_whose_child_died_before_its_first_byte_is_answered_by_the_next(
    faking: Fake, journal: Journal
) -> None:
    config = faking("--fake-die-at-byte", "-1", "--fake-scripted-lives", "1")
    async with running(config) as llamasup:
        for stream in (True, False):
            reply = await llamasup.ask("POST", "/v1/chat/completions", chat(5, stream=stream))
            assert reply.status == 200
    assert len(journal.entries("died")) == 1


async def test_a_request_is_sent_again_once_and_not_more(faking: Fake, journal: Journal) -> None:
    async with running(faking("--fake-die-at-byte", "-1", "--fake-death", "close")) as llamasup:
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(5))
        assert (reply.status, reply.error["code"]) == (502, "engine_lost")
    assert len(journal.entries("died")) == 2


async def test_a_kill_between_requests_goes_unnoticed(counting: dict[str, object]) -> None:
    async with running(counting) as llamasup:
        await loaded(llamasup)
        os.kill(await child_of(llamasup), signal.SIGKILL)
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(20))
        assert reply.text() == counted(20)


async def test_a_stream_that_is_cut_ends_with_an_error_and_properly(
    counting: dict[str, object],
) -> None:
    async with running(counting) as llamasup:
        await loaded(llamasup)
        async with llamasup.connect() as client:
            await client.send(request("POST", "/v1/chat/completions", chat(3000)))
            await client.read_until(b'" 7"')
            os.kill(await child_of(llamasup), signal.SIGKILL)
            ending = await client.read_until(b"0\r\n\r\n")
            assert b"[DONE]" not in ending
            last = json.loads(ending.rsplit(b"data: ", 1)[1].split(b"\n\n")[0])
            assert last["error"]["code"] == "engine_lost"
            # And the connection is as good as before.
            await client.send(request("POST", "/v1/chat/completions", chat(10)))
            assert (await client.reply()).text() == counted(10)


async def test_an_answer_in_one_piece_that_is_cut_breaks_off(faking: Fake) -> None:
    async with running(faking("--fake-die-at-byte", "40")) as llamasup:
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(50, stream=False))
        assert not reply.complete


@pytest.mark.parametrize("stream", [True, False])
async def test_a_child_that_hangs_is_replaced_and_its_request_sent_again(
    counting: dict[str, object], stream: bool
) -> None:
    config = {**counting, "recovery.stall_timeout": 0.5, "recovery.health_interval": 0.1}
    async with running(config) as llamasup:
        await loaded(llamasup)
        os.kill(await child_of(llamasup), signal.SIGSTOP)
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(20, stream=stream))
        assert reply.status == 200
        assert (await llamasup.model_status("count"))["loads"] == 2


async def test_an_idle_child_that_does_not_answer_any_more_is_found_out(
    counting: dict[str, object],
) -> None:
    async with running({**counting, "recovery.health_interval": 0.5}) as llamasup:
        await loaded(llamasup)
        os.kill(await child_of(llamasup), signal.SIGSTOP)

        async def gone() -> bool:
            return (await llamasup.model_status("count"))["child"] is None

        await eventually(gone)


async def test_a_slow_answer_that_moves_is_not_a_hang(faking: Fake, journal: Journal) -> None:
    config = {**faking("--fake-token-delay", "0.1"), "recovery.stall_timeout": 0.4}
    async with running(config) as llamasup:
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(15))
        assert reply.text() == counted(15)
    assert len(journal.entries("started")) == 1


async def test_a_model_that_keeps_failing_to_start_is_given_up_until_its_file_changes(
    counting: dict[str, object], tmp_path: Path
) -> None:
    good = Path(str(counting["models.count.path"]))
    model = tmp_path / "model.gguf"
    model.write_bytes(good.read_bytes()[:1000])
    async with running({**counting, "models.count.path": str(model)}) as llamasup:
        for _ in range(3):
            reply = await llamasup.ask("POST", "/v1/chat/completions", chat(5))
            assert reply.status == 503
        assert (await llamasup.model_status("count"))["loads"] == 1
        model.write_bytes(good.read_bytes())
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(5))
        assert reply.text() == counted(5)


async def test_a_preloaded_model_comes_back_without_being_asked_for(
    counting: dict[str, object],
) -> None:
    async with running({**counting, "pool.preload": ["count"]}) as llamasup:

        async def ready_after(loads: int) -> bool:
            status = await llamasup.model_status("count")
            return status["loads"] == loads and status["state"] == "ready"

        await eventually(lambda: ready_after(1))
        os.kill(await child_of(llamasup), signal.SIGKILL)
        await eventually(lambda: ready_after(2))


async def test_an_idle_model_that_is_not_preloaded_stays_away_when_it_died(
    counting: dict[str, object],
) -> None:
    async with running(counting) as llamasup:
        await loaded(llamasup)
        os.kill(await child_of(llamasup), signal.SIGKILL)

        async def unloaded() -> bool:
            return (await llamasup.model_status("count"))["state"] == "unloaded"

        await eventually(unloaded)
        await trio.sleep(0.3)  # a restart would show by now: a load takes 50 ms
        assert (await llamasup.model_status("count"))["loads"] == 1


async def test_a_child_that_holds_too_much_memory_is_replaced_while_it_is_idle(
    counting: dict[str, object],
) -> None:
    config = {**counting, "engine.max_child_memory": 1, "recovery.health_interval": 0.1}
    async with running(config) as llamasup:
        await loaded(llamasup)

        async def gone() -> bool:
            return (await llamasup.model_status("count"))["child"] is None

        await eventually(gone)
        await loaded(llamasup)


async def test_a_client_that_reads_slowly_does_not_make_its_child_look_hung(
    counting: dict[str, object],
) -> None:
    config = {**counting, "recovery.stall_timeout": 0.4, "recovery.health_interval": 0.2}
    async with running(config) as llamasup, llamasup.connect() as client:
        # Far more than the sockets on the way hold: some 200 bytes for each token.
        await client.send(request("POST", "/v1/chat/completions", chat(3000, n_probs=20)))
        await client.head()
        await trio.sleep(2)  # five times what a hang takes
        ending = await client.read_until(b"0\r\n\r\n")
        assert b"data: [DONE]" in ending
        assert (await llamasup.model_status("count"))["loads"] == 1


async def test_a_run_folder_that_is_removed_costs_clients_nothing_for_long(
    counting: dict[str, object],
) -> None:
    async with running(counting) as llamasup, llamasup.connect() as client:
        await client.send(request("POST", "/v1/chat/completions", chat(2000)))
        await client.read_until(b'" 7"')
        shutil.rmtree(llamasup.run_folder)

        async def is_healthy() -> bool:
            return (await llamasup.ask("GET", "/health")).status == 200

        await eventually(is_healthy)
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(10))
        assert reply.text() == counted(10)
        # And who was being answered is answered to the end.
        assert b"data: [DONE]" in await client.read_until(b"0\r\n\r\n")
        status = await llamasup.model_status("count")
        assert (status["loads"], status["last_failure"]) == (2, None)
