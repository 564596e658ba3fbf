"""What clients write, the engine logs and quotes; it decides nothing for anybody else."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Journal, Llamasup, chat, counted, running

Fake = Callable[..., Mapping[str, object]]

CHAT = "/v1/chat/completions"
LADDER = {"ladder.contexts": [4096, 2048, 1024]}
SPARE = 32 << 20
OUT_OF_MEMORY = "CUDA error: out of memory"
FORGED = [
    "root ::= x",
    "initializing slots, n_slots = 0",
    "0.00.000.001 I srv    load_model: initializing, n_slots = 0, n_ctx_slot = 1",
    "0.00.000.001 E alloc_tensor_range: failed to allocate CUDA0 buffer of size 12884901888",
    OUT_OF_MEMORY,
]
FORGED_ABORT = [
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "  what():  std::bad_alloc",
]


def refused(grammar: Sequence[str]) -> dict[str, object]:
    """The body of a completion whose grammar the engine cannot read, and logs as it is."""
    return {"prompt": "x", "n_predict": 1, "grammar": "\n".join(grammar)}


async def answered(llamasup: Llamasup) -> None:
    reply = await llamasup.ask("POST", CHAT, chat(5))
    assert reply.status == 200, reply.body
    assert reply.text() == counted(5)


async def facts(llamasup: Llamasup) -> Any:
    return await llamasup.model_status("count")


async def test_a_grammar_that_looks_like_a_start_leaves_the_slots_as_they_are(
    counting: dict[str, object],
) -> None:
    async with running(counting) as llamasup:
        assert (await llamasup.ask("POST", "/completion", refused(FORGED))).status == 400
        for _ in range(3):
            await answered(llamasup)
        assert (await facts(llamasup))["loads"] == 1


@pytest.mark.parametrize(
    "words",
    [
        {"reasoning_format": "cuda"},
        {"reasoning_format": OUT_OF_MEMORY},
        {"tools": [OUT_OF_MEMORY]},
        {"tool_choice": "std::bad_alloc"},
    ],
    ids=str,
)
async def test_an_error_that_quotes_its_request_costs_no_rung(
    counting: dict[str, object], words: Mapping[str, object]
) -> None:
    async with running(counting | LADDER) as llamasup:
        for _ in range(3):
            reply = await llamasup.ask("POST", CHAT, chat(5, stream=False, **words))
            assert reply.status in (400, 500)
        await answered(llamasup)
        status = await facts(llamasup)
        assert (status["loads"], status["rung"]) == (1, status["rungs"][0])


# A real abort has words of its own, which come last. One from outside has none.
DEATHS = [
    (signal.SIGSEGV, [*FORGED, *FORGED_ABORT]),
    (signal.SIGKILL, [*FORGED, *FORGED_ABORT]),
    (signal.SIGABRT, FORGED),
]


@pytest.mark.parametrize(("death", "grammar"), DEATHS, ids=["SEGV", "KILL", "ABRT"])
async def test_a_crash_after_a_refused_grammar_costs_no_rung(
    counting: dict[str, object], death: signal.Signals, grammar: Sequence[str]
) -> None:
    async with running(counting | LADDER) as llamasup:
        await answered(llamasup)
        first = await facts(llamasup)
        reply = await llamasup.ask("POST", "/completion", refused(grammar))
        assert reply.status == 400
        os.kill(first["child"]["pid"], death)
        await answered(llamasup)
        status = await facts(llamasup)
        assert (status["loads"], status["rung"]) == (2, first["rung"])


async def test_what_the_engine_cannot_take_in_is_the_requests_own_fault(
    faking: Fake, journal: Journal
) -> None:
    config = faking("--fake-error", "400 std::bad_alloc", "--fake-error-if", "huge")
    async with running({**config, **LADDER}) as llamasup:
        for _ in range(2):
            reply = await llamasup.ask("POST", CHAT, chat(5, huge="x" * (2 << 20)))
            assert (reply.status, reply.error["code"]) == (413, "body_too_large")
            assert "2 MiB: send less at once" in reply.error["message"]
        await answered(llamasup)
        assert len(journal.entries("started")) == 1
        assert len(journal.entries("request")) >= 3


async def test_a_request_that_takes_all_of_the_hosts_memory_is_refused_and_costs_one_rung_at_most(
    faking: Fake, journal: Journal
) -> None:
    deadly = faking(
        *("--fake-die-at-byte", "-1", "--fake-die-if", "huge", "--fake-death", "bad_alloc"),
        context_size=4096,
    )
    async with running({**deadly, **LADDER}) as llamasup:
        for _ in range(4):
            reply = await llamasup.ask("POST", CHAT, chat(5, user="huge"))
            assert (reply.status, reply.error["code"]) == (422, "request_kills_engine")
            await answered(llamasup)
    started = [entry["argv"] for entry in journal.entries("started")]
    contexts = [argv[argv.index("--ctx-size") + 1] for argv in started]
    assert contexts == ["4096", "2048", "4096"], "what it did is not remembered"


async def test_after_a_request_too_large_for_the_engine_no_smaller_context_is_remembered(
    counting: dict[str, object], tmp_path: Path
) -> None:
    """An engine may be able to say so, or die of it."""
    counting["folders.state"] = str(tmp_path)
    huge = {**chat(5, stream=False), "more": [1] * 3_000_000}
    async with running(counting | LADDER) as llamasup:
        await answered(llamasup)
        status = await facts(llamasup)
        pid, rungs = status["child"]["pid"], status["rungs"]
        mapped = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (mapped + SPARE, resource.RLIM_INFINITY))
        reply = await llamasup.ask("POST", CHAT, huge)
        # With a successor that has no such limit, its own may be the answer.
        assert reply.status in (200, 413, 422, 502), reply.body
        await answered(llamasup)
    async with running(counting | LADDER) as llamasup:
        await answered(llamasup)
        assert (await facts(llamasup))["rung"] == rungs[0]
