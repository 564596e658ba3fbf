"""llamasup behind llamasup: a request goes where its model is loaded and has a free slot.

LLAMASUP_TEST_LONG_FLEET=1 takes 3 inner llamasups, 40 models and 2,000 requests.
"""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from tests import harness
from tests.conftest import EMPTY_MODEL
from tests.endpoints.elsewhere import free_port
from tests.harness import FAKE, Journal, Llamasup, chat, counted, eventually, request, running

CHAT = "/v1/chat/completions"
LONG = bool(os.environ.get("LLAMASUP_TEST_LONG_FLEET"))
INNER, MODELS, REQUESTS, AT_ONCE, LOADED = (3, 40, 2000, 24, 8) if LONG else (3, 6, 90, 8, 3)
Answers = dict[tuple[int, str], list[tuple[float, float]]]
"""From when to when there were requests, by the inner llamasup that answered and the model."""

_SLOTS = 2


def inner_config(folder: Path, models: list[str], **more: object) -> dict[str, object]:
    """An inner llamasup with these models; each child has two slots."""
    folder.mkdir()
    config: dict[str, object] = {"engine.command": FAKE, "engine.args": [], **more}
    for model in models:
        file = folder / f"{model}.gguf"
        file.write_bytes(EMPTY_MODEL)
        journal = ["--fake-journal", str(folder / f"{model}.jsonl")]
        config |= {
            f"models.{model}.path": str(file),
            f"models.{model}.parallel": _SLOTS,
            f"models.{model}.extra_args": [*journal, "--fake-first-byte-delay", "0.05"],
        }
    return config


@asynccontextmanager
async def in_front_of(*inner: Llamasup, **more: object) -> AsyncIterator[Llamasup]:
    """A llamasup without models that knows these, as soon as it knows what they offer."""
    entries = [{"name": f"inner{at}", "url": one.url} for at, one in enumerate(inner)]
    async with running({"endpoints": entries, **more}) as outer:

        async def knows_all() -> bool:
            endpoints = (await outer.status())["endpoints"]
            known = [i for e in endpoints for i in e["instances"] if i["llamasup"]]
            return len(known) == len(inner)

        await eventually(knows_all)
        yield outer


async def test_the_outer_one_lists_what_the_inner_ones_have_and_their_states(
    tmp_path: Path,
) -> None:
    async with (
        running(inner_config(tmp_path / "a", ["x", "y"])) as a,
        running(inner_config(tmp_path / "b", ["y", "z"])) as b,
        in_front_of(a, b) as outer,
    ):
        listed = (await outer.ask("GET", "/v1/models")).json()["data"]
        assert {entry["id"] for entry in listed} == {"x", "y", "z"}
        assert {entry["status"]["value"] for entry in listed} == {"unloaded"}
        assert (await outer.ask("POST", CHAT, chat(3, model="y"))).text() == counted(3)

        async def y_is_loaded() -> bool:
            entry = (await outer.ask("GET", "/v1/models/y")).json()
            return bool(entry["status"]["value"] == "loaded")

        await eventually(y_is_loaded)


async def test_a_request_goes_where_its_model_is_loaded_and_ids_and_priority_travel(
    tmp_path: Path,
) -> None:
    async with (
        running(inner_config(tmp_path / "a", ["x"])) as a,
        running(inner_config(tmp_path / "b", ["x"])) as b,
        in_front_of(a, b) as outer,
    ):
        await b.ask("POST", CHAT, chat(1, model="x"))
        await trio.sleep(0.3)
        headers = {"X-Request-ID": "travels", "Priority": "u=1"}
        for _ in range(5):
            reply = await outer.ask("POST", CHAT, chat(2, model="x"), headers)
            assert reply.text() == counted(2)
            assert reply.headers["x-request-id"] == "travels"
    assert not Journal(tmp_path / "a" / "x.jsonl").entries()
    sent = Journal(tmp_path / "b" / "x.jsonl").entries("request")[-1]["headers"]
    got = {name.lower(): value for name, value in sent}
    assert (got["x-request-id"], got["priority"]) == ("travels", "u=1")
    assert len(got["x-llamasup-for"]) == 16


async def test_one_that_speaks_tls_is_trusted_by_its_authority_alone(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    proof = authority.issue_cert("127.0.0.1")
    proof.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    secure: dict[str, object] = {
        "server.listen": ["https://127.0.0.1:0"],
        "server.tls_certificate": str(tmp_path / "server.pem"),
        "server.tls_key": str(tmp_path / "server.pem"),
    }
    async with running(inner_config(tmp_path / "a", ["x"], **secure)) as inner:
        entry = {"name": "inner", "url": f"https://127.0.0.1:{inner.address.port}"}
        trusting = entry | {"ca_file": str(tmp_path / "ca.pem")}
        async with running({"endpoints": [trusting]}) as outer:
            assert (await outer.ask("POST", CHAT, chat(3, model="x"))).text() == counted(3)
        async with running({"endpoints": [entry | {"cold_start_timeout": 1}]}) as outer:
            assert (await outer.ask("POST", CHAT, chat(3, model="x"))).status == 404
            [instance] = (await outer.status())["endpoints"][0]["instances"]
            assert "certificate is not trusted" in instance["why"]


async def test_endpoints_that_the_configuration_gets_or_loses_are_followed(tmp_path: Path) -> None:
    async with (
        running(inner_config(tmp_path / "a", ["x"])) as a,
        running(inner_config(tmp_path / "b", ["y"])) as b,
    ):
        file = tmp_path / "llamasup.toml"

        def write(one: Llamasup) -> None:
            entry = f'[[endpoints]]\nname = "inner"\nurl = "{one.url}"\n'
            file.write_text(f'[server]\nlisten = "127.0.0.1:0"\n{entry}')

        write(a)
        async with running({}, file=file) as outer:
            assert (await outer.ask("POST", CHAT, chat(3, model="x"))).text() == counted(3)
            write(b)

            async def has_y_alone() -> bool:
                listed = (await outer.ask("GET", "/v1/models")).json()["data"]
                return [entry["id"] for entry in listed] == ["y"]

            await eventually(has_y_alone)
            assert (await outer.ask("POST", CHAT, chat(3, model="y"))).text() == counted(3)


async def test_a_second_copy_is_loaded_where_it_fits_when_the_first_has_no_free_slot(
    tmp_path: Path,
) -> None:
    async with (
        running(inner_config(tmp_path / "a", ["x"])) as a,
        running(inner_config(tmp_path / "b", ["x"])) as b,
        in_front_of(a, b) as outer,
        trio.open_nursery() as nursery,
    ):
        for _ in range(6):
            nursery.start_soon(outer.ask, "POST", CHAT, chat(2, model="x"))
    for name in "ab":
        assert len(Journal(tmp_path / name / "x.jsonl").entries("started")) == 1


async def test_two_that_know_each_other_send_nothing_in_a_circle(tmp_path: Path) -> None:
    async with running(inner_config(tmp_path / "a", ["x"])) as a:
        file = tmp_path / "b.toml"
        text = f'[server]\nlisten = "127.0.0.1:0"\n[[endpoints]]\nname = "a"\nurl = "{a.url}"\n'
        file.write_text(text)
        async with in_front_of(a) as b, in_front_of(b, a) as c:
            ours = (await a.ask("GET", "/api/offers")).json()["instance"]
            offered = (await c.ask("GET", "/api/offers")).json()["models"]["x"]
            assert offered["origins"] == [ours]
            assert (await c.ask("POST", CHAT, chat(2, model="x"))).text() == counted(2)
            headers = {"Via": f"1.1 {ours}"}
            reply = await a.ask("POST", CHAT, chat(1, model="x"), headers)
            assert (reply.status, reply.error["code"]) == (508, "loop_detected")


async def test_a_client_that_leaves_the_outer_one_leaves_the_engine(tmp_path: Path) -> None:
    async with running(inner_config(tmp_path / "a", ["x"])) as a, in_front_of(a) as outer:
        async with outer.connect() as client:
            body = chat(100000, model="x")
            await client.send(request("POST", CHAT, body))
            await client.read_until(b" 5")
        journal = Journal(tmp_path / "a" / "x.jsonl")
        await eventually(lambda: journal.entries("client closed"))


async def test_no_model_is_loaded_twice_while_one_copy_has_free_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inner ones hold fewer models than there are, so they evict; the outer one decides
    where."""
    monkeypatch.setattr(harness, "PATIENCE", 300.0 if LONG else harness.PATIENCE)
    models = [f"m{number}" for number in range(MODELS)]
    chance = random.Random(7)
    statuses: list[int] = []
    answers: Answers = defaultdict(list)
    async with AsyncExitStack() as stack:
        limit = {"pool.max_loaded_models": LOADED, "pool.turn": 0.5}
        inner = [
            await stack.enter_async_context(
                running(inner_config(tmp_path / str(at), models, **limit))
            )
            for at in range(INNER)
        ]
        outer = await stack.enter_async_context(in_front_of(*inner))
        # The models that are asked for most are others at the end than in the beginning.
        wanted = (chance.triangular(0, MODELS, at * MODELS / REQUESTS) for at in range(REQUESTS))
        plan = [models[int(number)] for number in wanted]

        async def client() -> None:
            while plan:
                model, began = plan.pop(0), time.monotonic()
                reply = await outer.ask("POST", CHAT, chat(1, model=model, stream=False))
                statuses.append(reply.status)
                where = int(reply.headers["x-llamasup-instance"].removeprefix("inner"))
                answers[where, model].append((began, time.monotonic()))

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(client)
    assert statuses == [200] * REQUESTS
    loads = [load for model in models for load in needless_loads(tmp_path, model, answers)]
    # Among hundreds of loads, some copies were closed at that moment, because their turn was over:
    # that cannot be seen from outside.
    assert len(loads) <= (REQUESTS // 100 if LONG else 0), loads


def needless_loads(folder: Path, model: str, answers: Answers) -> list[str]:
    """Every load of the model while a copy of it elsewhere had a free slot, all the time from when
    the request came for which it was loaded."""
    journals = [Journal(folder / str(at) / f"{model}.jsonl").entries() for at in range(INNER)]
    return [
        f"{model} on {at} at {entry['at']:.2f}"
        for at, entries in enumerate(journals)
        for entry in entries
        if entry["event"] == "started" and "--fake-journal" in entry["argv"]
        for other in range(INNER)
        if other != at
        and lived(
            journals[other], since := wanted_since(answers[at, model], entry["at"]), entry["at"]
        )
        and most_at_once(answers[other, model], since, entry["at"]) < _SLOTS
    ]


def wanted_since(answers: list[tuple[float, float]], moment: float) -> float:
    """When the first request came that was there at this moment."""
    return min((came for came, gone in answers if came <= moment <= gone), default=moment)


def lived(entries: list[dict[str, Any]], begin: float, end: float) -> bool:
    """Was there a child that was ready all this time?"""
    ready = False
    for entry in entries:
        if entry["at"] > end:
            break
        if entry["event"] in ("signal", "stdin closed"):
            ready = False
        elif entry["event"] == "ready" and entry["at"] <= begin:
            ready = True
    return ready


def most_at_once(answers: list[tuple[float, float]], begin: float, end: float) -> int:
    """How many of these requests were there at once, at most, as their clients saw it."""
    there = [(max(came, begin), gone) for came, gone in answers if came <= end and gone >= begin]
    return max((sum(c <= came <= g for c, g in there) for came, _ in there), default=0)


async def test_two_that_know_each_other_do_not_keep_the_model_of_a_third_alive(
    tmp_path: Path,
) -> None:
    ports = {name: free_port() for name in ("owner", "one", "two")}

    def config(name: str, *others: str) -> dict[str, object]:
        entries = [{"name": o, "url": f"http://127.0.0.1:{ports[o]}"} for o in others]
        return {
            "endpoints": [entry | {"cold_start_timeout": "1s"} for entry in entries],
            "server.listen": f"127.0.0.1:{ports[name]}",
        }

    owner = inner_config(
        tmp_path / "owner", ["x"], **{"server.listen": f"127.0.0.1:{ports['owner']}"}
    )
    async with (
        running(config("one", "owner", "two")) as one,
        running(config("two", "owner", "one")) as two,
    ):
        async with running(owner):

            async def both_have_it() -> bool:
                replies = [await here.ask("POST", CHAT, chat(1, model="x")) for here in (one, two)]
                return [reply.status for reply in replies] == [200, 200]

            await eventually(both_have_it)
            await trio.sleep(0.5)

        async def nobody_has_it() -> bool:
            found = [await here.ask("GET", "/v1/models") for here in (one, two)]
            states = {e["status"]["value"] for r in found for e in r.json()["data"]}
            return "loaded" not in states

        await eventually(nobody_has_it)
        reply = await one.ask("POST", CHAT, chat(1, model="x"))
        assert reply.error["code"] == "endpoint_unavailable"
