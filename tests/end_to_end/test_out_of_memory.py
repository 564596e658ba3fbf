"""Memory runs out, while a model loads or while it answers, and the client sees only time.

On the real engines by a limit on their address space; on the fake one for what they won't do on
demand.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from llamasup.engine.locate import EMBEDDED
from tests.harness import Journal, Llamasup, chat, counted, request, running

Fake = Callable[..., Mapping[str, object]]

LADDER = {"ladder.contexts": [16384, 8192, 4096, 2048]}
OUT_OF_MEMORY = "500 CUDA error: out of memory"


def contexts_tried(journal: Journal) -> list[int]:
    """The `--ctx-size` of every child so far."""
    started = [entry["argv"] for entry in journal.entries("started")]
    return [int(argv[argv.index("--ctx-size") + 1]) for argv in started]


async def answered(llamasup: Llamasup, tokens: int = 5, **more: Any) -> None:
    reply = await llamasup.ask("POST", "/v1/chat/completions", chat(tokens, **more))
    assert reply.status == 200, reply.body
    assert reply.text() == counted(tokens)


async def test_a_real_model_that_is_too_large_is_answered_from_a_lower_rung(
    counting: dict[str, object], tmp_path: Path
) -> None:
    # 512 bytes of KV cache per token: 2 GB, 1 GB, 128 MB (whose compute buffer fails), 16 MB.
    limited = f"{shutil.which('prlimit')} --as=900000000 "
    if counting["engine.command"] == "embedded":
        limited = f"{shutil.which('prlimit')} --as=1500000000 "
        counting["engine.command"] = shlex.join(EMBEDDED.command)
    config = {
        **counting,
        "engine.command": limited + str(counting["engine.command"]),
        "models.count.ladder": [{"context_size": size} for size in (4_000_000, 2_000_000, 32768)],
        "folders.state": str(tmp_path),
    }
    async with running(config) as llamasup:
        await answered(llamasup, tokens=50)
        assert (await llamasup.model_status("count"))["loads"] == 3
    async with running(config) as llamasup:
        await answered(llamasup)
        status = await llamasup.model_status("count")
        assert status["loads"] == 1, "the rung that held was not remembered"


async def test_a_load_goes_down_the_ladder_until_it_holds(faking: Fake, journal: Journal) -> None:
    config = faking("--fake-fail-above-ctx", "4096", "--fake-fail-load", "out of memory")
    async with running({**config, **LADDER}) as llamasup:
        await answered(llamasup)
        assert contexts_tried(journal) == [16384, 8192, 4096]


async def test_if_no_rung_holds_the_client_learns_what_was_tried_and_no_storm_follows(
    faking: Fake, journal: Journal
) -> None:
    config = {**faking("--fake-fail-load", "out of memory"), **LADDER, "recovery.patience": 1}
    async with running(config) as llamasup:
        first = await llamasup.ask("POST", "/v1/chat/completions", chat(5))
        assert first.status == 503
        assert first.error["code"] == "out_of_memory"
        for context in LADDER["ladder.contexts"]:
            assert f"context {context}: out of memory" in first.error["message"]
        for _ in range(20):
            again = await llamasup.ask("POST", "/v1/chat/completions", chat(5))
            assert again.status == 503
            assert 0 < int(again.headers["retry-after"]) <= 70
        assert contexts_tried(journal) == LADDER["ladder.contexts"]


async def test_an_answer_that_memory_ran_out_is_replaced_by_one_from_the_next_rung(
    faking: Fake, journal: Journal
) -> None:
    config = faking("--fake-error", OUT_OF_MEMORY, "--fake-scripted-lives", "1")
    async with running({**config, **LADDER}) as llamasup:
        await answered(llamasup)
        assert contexts_tried(journal) == [16384, 8192]
        assert [entry["target"] for entry in journal.entries("request")].count(
            "/v1/chat/completions"
        ) == 2


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_a_stream_whose_first_event_is_that_is_replaced_too_though_a_ping_went_out(
    faking: Fake, journal: Journal, version: bytes
) -> None:
    config = faking(
        *("--fake-error", OUT_OF_MEMORY, "--fake-error-in-stream", "--fake-scripted-lives", "1")
    )
    asking = request("POST", "/v1/chat/completions", chat(5))
    async with running({**config, **LADDER}) as llamasup, llamasup.connect() as client:
        await client.send(asking.replace(b"HTTP/1.1", version, 1))
        reply = await client.reply()
        assert reply.complete
        assert reply.body.startswith(b":\n\n")
        assert reply.text() == counted(5)
        assert reply.events()[-1] == "[DONE]"
        assert b"error" not in reply.body
        assert contexts_tried(journal) == [16384, 8192]


async def test_it_is_tried_again_once_and_not_more(faking: Fake, journal: Journal) -> None:
    config = faking("--fake-error", OUT_OF_MEMORY, "--fake-scripted-lives", "2")
    async with running({**config, **LADDER}) as llamasup:
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(5))
        assert reply.status == 503
        assert reply.error["code"] == "out_of_memory"
        await answered(llamasup)
        assert contexts_tried(journal) == [16384, 8192, 4096]


async def test_many_requests_that_run_out_of_memory_at_once_are_one_step(
    faking: Fake, journal: Journal
) -> None:
    config = faking(
        *("--fake-error", OUT_OF_MEMORY, "--fake-scripted-lives", "1"),
        *("--fake-first-byte-delay", "0.3"),
        parallel=8,
    )
    async with running({**config, **LADDER}) as llamasup, trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(answered, llamasup)
    assert contexts_tried(journal) == [16384, 8192]


async def test_a_prompt_that_is_too_long_is_the_clients_affair(
    faking: Fake, journal: Journal
) -> None:
    words = "400 exceed_context_size_error: the request exceeds the available context size"
    async with running({**faking("--fake-error", words), **LADDER}) as llamasup:
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(5))
        assert reply.status == 400
        assert "exceed_context_size_error" in reply.error["message"]
        assert contexts_tried(journal) == [16384]


async def test_a_model_named_cuda_that_says_error_stays_on_its_rung(
    faking: Fake, journal: Journal
) -> None:
    config = faking("--fake-words", "out of memory error", name="cuda-coder")
    async with running({**config, **LADDER}) as llamasup:
        for _ in range(2):
            reply = await llamasup.ask("POST", "/v1/chat/completions", chat(4))
            assert reply.text() == "outofmemoryerror"
        assert contexts_tried(journal) == [16384]


async def test_an_error_that_quotes_the_clients_words_costs_no_rung(
    faking: Fake, journal: Journal
) -> None:
    words = "500 Failed to parse messages: Missing 'role' in message: out of memory"
    async with running({**faking("--fake-error", words), **LADDER}) as llamasup:
        for _ in range(2):
            reply = await llamasup.ask("POST", "/v1/chat/completions", chat(5))
            assert reply.status == 500
        assert contexts_tried(journal) == [16384]


async def test_on_the_last_rung_a_child_that_runs_out_is_left_running(
    faking: Fake, journal: Journal
) -> None:
    config = faking("--fake-error", OUT_OF_MEMORY, context_size=2048)
    async with running(config) as llamasup:
        for _ in range(3):
            reply = await llamasup.ask("POST", "/v1/chat/completions", chat(5))
            assert (reply.status, reply.error["code"]) == (503, "out_of_memory")
            assert "out of memory" in reply.error["message"]
        assert contexts_tried(journal) == [2048]


async def test_a_stream_beside_one_that_ran_out_of_memory_is_let_finish(
    faking: Fake, journal: Journal
) -> None:
    config = faking(
        *("--fake-error", OUT_OF_MEMORY, "--fake-error-if", "much", "--fake-scripted-lives", "1"),
        *("--fake-token-delay", "0.02"),
        parallel=2,
    )
    async with running({**config, **LADDER}) as llamasup, llamasup.connect() as client:
        await client.send(request("POST", "/v1/chat/completions", chat(40)))
        await client.read_until(b'" 3"')
        await answered(llamasup, user="much")
        assert contexts_tried(journal) == [16384, 8192]
        assert (await client.read_until(b"0\r\n\r\n")).count(b"data: [DONE]") == 1
