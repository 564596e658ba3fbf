"""Instances elsewhere: their models are served as our own, whatever happens to single instances."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import trio

from tests.endpoints.answering import answering
from tests.endpoints.elsewhere import Elsewhere, asked, fakes_elsewhere, free_port, knowing
from tests.harness import Journal, chat, counted, eventually, request, running

CHAT = "/v1/chat/completions"
Faking = Callable[..., Mapping[str, object]]


async def test_a_model_elsewhere_is_found_and_answers(tmp_path: Path) -> None:
    with fakes_elsewhere(tmp_path, "box") as [box]:
        async with knowing(box) as llamasup:
            for name in ("far", "far.gguf", "FAR", "openai/far:latest", None):
                reply = await llamasup.ask("POST", "/v1/chat/completions", chat(5, model=name))
                assert reply.status == 200, reply.body
                assert reply.text() == counted(5)


async def test_clients_keys_stay_here_and_the_endpoints_own_is_sent(tmp_path: Path) -> None:
    with fakes_elsewhere(tmp_path, "box") as [box]:
        entry: dict[str, object] = {"key": "ours", "headers": {"X-Team": "blue"}}
        async with knowing(box, entry=entry) as llamasup:
            headers = {
                "Authorization": "Bearer client's",
                "X-Api-Key": "client's",
                "X-Request-ID": "abc",
                "Priority": "u=1",
            }
            body = chat(1, model="far")
            assert (await llamasup.ask("POST", "/v1/chat/completions", body, headers)).status == 200
            [sent] = box.requests
    got = {name.lower(): value for name, value in sent["headers"]}  # type: ignore[attr-defined]
    assert "client's" not in json.dumps(got)
    assert got["authorization"] == "Bearer ours"
    assert got["x-team"] == "blue"
    assert got["host"] == f"127.0.0.1:{box.port}"
    assert (got["x-request-id"], got["priority"]) == ("abc", "u=1")


async def test_a_request_waits_for_an_instance_that_only_starts(tmp_path: Path) -> None:
    box = Elsewhere(tmp_path, "box", "--fake-load-seconds", "1")
    async with knowing(box) as llamasup, trio.open_nursery() as nursery:
        statuses: list[int] = []
        nursery.start_soon(asked, llamasup, 1, chat(1, model="far"), statuses)
        await trio.sleep(0.3)
        with box:
            await eventually(lambda: statuses)
    assert statuses == [200]


async def test_an_instance_that_comes_back_is_used_within_a_second(tmp_path: Path) -> None:
    with fakes_elsewhere(tmp_path, "box") as [box]:
        async with knowing(box) as llamasup:
            assert (await llamasup.ask("POST", "/v1/completions", chat(1))).status == 200
            box.kill()
            await trio.sleep(0.7)
            statuses: list[int] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(asked, llamasup, 1, chat(1), statuses)
                await trio.sleep(0.2)
                box.start()
            assert statuses == [200]
            _first, second = (entry["at"] for entry in box.journal.entries("ready"))
            answered = box.requests[-1]["at"]
            assert second < answered < second + 1  # type: ignore[operator]


async def test_while_instances_die_and_come_back_nothing_is_lost(tmp_path: Path) -> None:
    with fakes_elsewhere(tmp_path, "a", "b", "c", options=("--parallel", "4")) as boxes:
        async with knowing(*boxes) as llamasup:
            statuses: list[int] = []
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(asked, llamasup, 12, chat(1, stream=False), statuses)
                    box = boxes[len(statuses) % 3]
                    await trio.sleep(0.05)
                    box.kill()
                    await trio.sleep(0.1)
                    box.start()
                    await trio.sleep(0.1)
    assert statuses == [200] * 120


async def test_an_instance_gets_no_more_requests_than_it_has_slots(tmp_path: Path) -> None:
    options = ("--parallel", "2", "--fake-first-byte-delay", "0.05")
    with fakes_elsewhere(tmp_path, "a", "b", options=options) as boxes:
        async with knowing(*boxes) as llamasup:
            statuses: list[int] = []
            await asked(llamasup, 16, chat(1), statuses)
            for box in boxes:
                await eventually(lambda box=box: len(box.journal.entries("answered")) >= 8)
                assert max(int(str(e["busy"])) for e in box.requests) < 2
    assert statuses == [200] * 16


async def test_a_request_that_ends_instances_does_not_end_a_whole_fleet(tmp_path: Path) -> None:
    options = ("--fake-die-at-byte", "-1", "--fake-die-if", "poison", "--fake-death", "close")
    with fakes_elsewhere(tmp_path, *"abcde", options=options) as boxes:
        async with knowing(*boxes) as llamasup:
            for box in boxes:
                await box.is_ready()
            reply = await llamasup.ask("POST", "/v1/chat/completions", chat(1, user="poison"))
            assert (reply.status, reply.error["code"]) == (502, "engine_lost")
            assert sum(len(box.requests) for box in boxes) == 3
            assert (await llamasup.ask("POST", "/v1/chat/completions", chat(1))).status == 200


async def test_a_client_that_leaves_is_known_there_and_counts_against_nobody(
    tmp_path: Path,
) -> None:
    options = ("--fake-token-delay", "0.02")
    with fakes_elsewhere(tmp_path, "box", options=options) as [box]:
        async with knowing(box) as llamasup:
            for _ in range(6):
                async with llamasup.connect() as client:
                    await client.send(request("POST", "/v1/chat/completions", chat(1000)))
                    await client.read_until(b" 1")
            await eventually(lambda: len(box.journal.entries("client closed")) == 6)
            reply = await llamasup.ask("POST", "/v1/chat/completions", chat(2))
            assert reply.text() == counted(2)


async def test_the_name_there_is_put_into_the_body_and_nothing_else_changes(
    tmp_path: Path,
) -> None:
    echo = Elsewhere(tmp_path, "box", model="a.gguf")
    rename = {"a": "mine"}
    with echo:
        async with knowing(echo, entry={"rename": rename}, **{"pool.sticky": False}) as llamasup:
            reply = await llamasup.ask("POST", "/v1/chat/completions", chat(1, model="mine"))
            assert reply.status == 200
            reply = await llamasup.ask("POST", "/v1/chat/completions", chat(1, model="b"))
            assert (reply.status, reply.error["code"]) == (404, "model_not_found")
            assert '"mine"' in reply.error["message"]


async def test_the_error_says_which_instance_is_in_which_condition(tmp_path: Path) -> None:
    with fakes_elsewhere(tmp_path, "box") as [box]:
        await box.is_ready()
        async with knowing(box, entry={"cold_start_timeout": 1}) as llamasup:
            assert (await llamasup.ask("POST", "/v1/chat/completions", chat(1))).status == 200
            box.kill()
            began = time.monotonic()
            reply = await llamasup.ask("POST", "/v1/chat/completions", chat(1))
            assert time.monotonic() - began < 5
    assert (reply.status, reply.error["code"]) == (503, "endpoint_unavailable")
    assert "box is unreachable (Connection refused)" in reply.error["message"]
    assert 1 <= int(reply.headers["retry-after"]) <= 10


async def test_a_typing_error_is_not_waited_for_once_all_endpoints_are_known(
    tmp_path: Path,
) -> None:
    with fakes_elsewhere(tmp_path, "box") as [box]:
        async with knowing(box) as llamasup:
            assert (await llamasup.ask("POST", "/v1/chat/completions", chat(1))).status == 200
            with trio.fail_after(5):
                reply = await llamasup.ask("POST", "/v1/chat/completions", chat(1, model="farr"))
    assert reply.status == 404
    assert '"far"' in reply.error["message"]


@pytest.mark.parametrize("status", [429, 503])
async def test_an_instance_without_room_is_passed_over_but_the_last_word_is_passed_on(
    tmp_path: Path, status: int
) -> None:
    full = Elsewhere(tmp_path, "full", "--fake-error", f"{status} no room")
    other = Elsewhere(tmp_path, "other")
    with full, other:
        entry = {"endpoints": [full.entry | {"priority": 1}, other.entry]}
        async with running(entry) as llamasup:
            await other.is_ready()
            await full.is_ready()
            for _ in range(3):
                await trio.sleep(0.3)
                reply = await llamasup.ask("POST", "/v1/chat/completions", chat(2))
                assert reply.text() == counted(2)
            other.kill()
            await trio.sleep(1.5)
            reply = await llamasup.ask("POST", "/v1/chat/completions", chat(2))
            assert (reply.status, reply.error["message"]) == (status, "no room")


async def test_an_endpoint_that_is_away_from_the_start_keeps_nothing_else_waiting(
    counting: dict[str, object],
) -> None:
    away = {"name": "away", "url": f"http://127.0.0.1:{free_port()}"}
    async with running({**counting, "endpoints": [away]}) as llamasup:
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(3))
        assert reply.text() == counted(3)


async def test_a_request_waits_for_one_that_lists_its_models_while_it_loads() -> None:
    loading: tuple[int, object] = (503, {"error": {"message": "Loading model", "code": 503}})
    answers: dict[str, tuple[int, object]] = {
        "/v1/models": (200, {"data": [{"id": "far"}]}),
        "/v1/completions": loading,
    }
    async with answering(answers) as (address, heads):
        entry = {"name": "box", "url": f"http://{address}"}
        async with running({"endpoints": [entry]}) as llamasup, trio.open_nursery() as nursery:
            statuses: list[int] = []

            async def ask() -> None:
                reply = await llamasup.ask("POST", "/v1/completions", chat(1, model="far"))
                statuses.append(reply.status)

            nursery.start_soon(ask)
            await eventually(lambda: any(head.startswith("POST") for head in heads))
            await trio.sleep(1)
            answers["/v1/completions"] = (200, {})
            await eventually(lambda: statuses)
    assert statuses == [200]
    assert sum(head.startswith("POST") for head in heads) < 6


async def test_below_upstream_is_no_instance_elsewhere(
    tmp_path: Path, faking: Faking, journal: Journal
) -> None:
    """It may be a whole server, with other models and its operators' pages; we have a key there,
    and clients' limits are here."""
    with fakes_elsewhere(tmp_path, "box", options=("--parallel", "4")) as [box]:
        ours = faking("--fake-first-byte-delay", "60", name="far", parallel=1)
        async with knowing(box) as llamasup:
            assert (await llamasup.ask("POST", CHAT, chat(1, model="far"))).status == 200
            for path in ("/upstream/far/config", "/upstream/far/", "/upstream/far"):
                reply = await llamasup.ask("GET", path)
                assert reply.status == 400
                assert "runs on an instance elsewhere" in reply.error["message"]
        async with knowing(box, **ours) as llamasup, llamasup.connect() as busy:
            await busy.send(request("POST", "/upstream/far/v1/chat/completions", chat(1)))
            await eventually(lambda: journal.entries("request"))
            async with llamasup.connect() as waiting:
                await waiting.send(request("POST", "/upstream/far/tokenize", {"model": "x"}))
                assert (await llamasup.ask("POST", CHAT, chat(1, model="far"))).status == 200
        assert {one["target"] for one in box.requests} == {CHAT}
