"""llamasup behind llamasup: a request goes where its model is loaded and has a free slot.

LLAMASUP_TEST_LONG_FLEET=1 takes 3 inner llamasups, 40 models and 2,000 requests.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from llamasup.pool import opening
from llamasup.pool.pool import Pool
from llamasup.pool.residency import Place
from llamasup.pool.work import Work
from tests import harness
from tests.conftest import EMPTY_MODEL
from tests.endpoints.elsewhere import free_port
from tests.harness import FAKE, Journal, Llamasup, chat, counted, eventually, request, running

CHAT = "/v1/chat/completions"
LONG = bool(os.environ.get("LLAMASUP_TEST_LONG_FLEET"))
INNER, MODELS, REQUESTS, AT_ONCE, LOADED = (3, 40, 2000, 24, 8) if LONG else (3, 6, 90, 8, 3)

_SLOTS = 2
_NEWS = 0.25
"""Seconds until the outer one knows of a free slot for certain, and has taken requests back."""


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


async def test_an_answer_names_each_llamasup_on_its_way_in_a_line_of_its_own(
    tmp_path: Path,
) -> None:
    async with running(inner_config(tmp_path / "a", ["x"])) as a, in_front_of(a) as outer:
        for one, hops in ((a, 1), (outer, 2)):
            async with one.connect() as client:
                await client.send(request("POST", CHAT, chat(1, model="x")))
                head = await client.read_until(b"\r\n\r\n")
            assert head.lower().count(b"\r\nvia: 1.1 llamasup") == hops


async def test_a_client_that_leaves_the_outer_one_leaves_the_engine(tmp_path: Path) -> None:
    async with running(inner_config(tmp_path / "a", ["x"])) as a, in_front_of(a) as outer:
        async with outer.connect() as client:
            body = chat(100000, model="x")
            await client.send(request("POST", CHAT, body))
            await client.read_until(b" 5")
        journal = Journal(tmp_path / "a" / "x.jsonl")
        await eventually(lambda: journal.entries("client closed"))


class Record(trio.abc.Instrument):
    """Of every step of the inner llamasups, which are in this process: which copies of a model are
    open and have a free slot, since when, and which loads begin meanwhile.

    A copy whose turn is over is not open: it only finishes what it has, to make room.
    """

    def __init__(self) -> None:
        self.pools: list[Pool] = []
        self.loads = 0
        self.second_loads: list[tuple[float, str]] = []
        """For how long a copy elsewhere had been free when the load began; and which load."""

        self._free_since: dict[tuple[Pool, str], float] = {}
        self._places: dict[tuple[Pool, str], Place] = {}

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Compare with the last step."""
        now = trio.current_time()
        places = {(p, m): place for p in self.pools for m, place in p.residency.places.items()}
        for (pool, model), place in places.items():
            if self._places.get((pool, model)) is not place:
                self._note_load(pool, model, now)
        self._places = places
        self._free_since = {
            copy: self._free_since.get(copy, now)
            for copy, place in places.items()
            if place.gate.is_free(Work.GENERATE)
        }

    def _note_load(self, pool: Pool, model: str, now: float) -> None:
        self.loads += 1
        for (other, name), since in self._free_since.items():
            if name == model and other is not pool:
                where, there = self.pools.index(pool), self.pools.index(other)
                words = f"{model} on {where}, free on {there} for {now - since:.2f} s"
                self.second_loads.append((now - since, words))


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    """Of all pools that are opened in this test."""
    record = Record()

    class Recorded(Pool):
        def __init__(self, *args: Any, **more: Any) -> None:
            super().__init__(*args, **more)
            record.pools.append(self)

    monkeypatch.setattr(opening, "Pool", Recorded)
    return record


async def test_no_model_is_loaded_twice_while_one_copy_has_free_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    """The inner ones hold fewer models than there are, so they evict; the outer one decides
    where."""
    monkeypatch.setattr(harness, "PATIENCE", 300.0 if LONG else harness.PATIENCE)
    models = [f"m{number}" for number in range(MODELS)]
    chance = random.Random(7)
    statuses: list[int] = []
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
                body = chat(1, model=plan.pop(0), stream=False)
                statuses.append((await outer.ask("POST", CHAT, body)).status)

        trio.lowlevel.add_instrument(record)
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(client)
        trio.lowlevel.remove_instrument(record)
    assert statuses == [200] * REQUESTS
    assert record.loads >= min(MODELS, LOADED)
    assert [load for seconds, load in record.second_loads if seconds > _NEWS] == []


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
