"""The configuration changes while llamasup runs, and takes effect as a whole, or not at all."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from attrs import define

from llamasup.config.addresses import TcpAddress
from llamasup.config.toml_file import written
from tests.harness import (
    FAKE,
    Client,
    Journal,
    Llamasup,
    Reply,
    chat,
    counted,
    eventually,
    is_alive,
    request,
    running,
)

CHAT = "/v1/chat/completions"
KEY = "open-sesame"
OPERATOR = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llamasup.reload.PAUSE", 0.02)


@define
class Operator:
    """Writes llamasup.toml."""

    file: Path
    tables: dict[str, Any]

    def write(self) -> None:
        """All at once, as careful editors do."""
        draft = self.file.with_suffix(".new")
        draft.write_text(written(self.tables))
        draft.replace(self.file)

    @asynccontextmanager
    async def runs(self) -> AsyncIterator[Llamasup]:
        self.write()
        async with running({}, file=self.file) as llamasup:
            yield llamasup


@pytest.fixture
def operator(tmp_path: Path, journal: Journal) -> Operator:
    """Who has two models, served by the fake engine."""
    journaling = ["--fake-journal", str(journal.path)]
    (tmp_path / "m.gguf").touch()
    model = {"path": str(tmp_path / "m.gguf")}
    tables = {
        "server": {"listen": ["127.0.0.1:0"], "admin_key": KEY},
        "engine": {"command": FAKE, "args": [*journaling, "--fake-token-delay", "0.01"]},
        "models": {"one": dict(model), "two": dict(model)},
    }
    return Operator(tmp_path / "llamasup.toml", tables)


async def ask(llamasup: Llamasup, model: str, tokens: int = 3) -> Reply:
    return await llamasup.ask("POST", CHAT, chat(tokens, model=model))


async def names(llamasup: Llamasup) -> list[str]:
    return [model["name"] for model in (await llamasup.status())["models"]]


async def pid(llamasup: Llamasup, model: str) -> int | None:
    child = (await llamasup.model_status(model))["child"]
    return child and child["pid"]


async def said(caplog: pytest.LogCaptureFixture, words: str, times: int = 1) -> None:
    await eventually(lambda: caplog.text.count(words) == times)


async def rest(client: Client) -> tuple[str, bool]:
    """What else a stream says whose head was read, and whether it ends as it should."""
    body, complete = await client.chunks()
    return Reply(200, {}, body).text(), complete


IN_EFFECT = "was loaded again and is in effect"


async def test_only_the_model_whose_launch_changed_is_restarted_and_after_its_answers(
    operator: Operator, journal: Journal
) -> None:
    async with operator.runs() as llamasup, llamasup.connect() as client:
        for model in ("one", "two"):
            assert (await ask(llamasup, model)).status == 200
        before = await pid(llamasup, "one"), await pid(llamasup, "two")
        await client.send(request("POST", CHAT, chat(100, model="one")))
        await client.head()
        operator.tables["models"]["one"]["context_size"] = 1234
        operator.write()

        async def has_a_successor() -> bool:
            reply = await ask(llamasup, "one")
            assert reply.text() == counted(3)
            return await pid(llamasup, "one") not in (None, before[0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(eventually, has_a_successor)
            text, complete = await rest(client)
        assert (text, complete) == (counted(100), True)
        assert await pid(llamasup, "two") == before[1]
    first, _, last = journal.entries("started")
    assert "1234" not in first["argv"]
    assert last["argv"][last["argv"].index("--ctx-size") + 1] == "1234"


async def test_models_come_and_go_and_get_other_names(operator: Operator) -> None:
    models = operator.tables["models"]
    async with operator.runs() as llamasup:
        assert (await ask(llamasup, "one")).status == 200
        before = await pid(llamasup, "one")
        models["three"] = models.pop("two")
        models["one"]["aliases"] = ["uno"]
        operator.write()

        async def is_in_effect() -> bool:
            return await names(llamasup) == ["one", "three"]

        await eventually(is_in_effect)
        for model, status in (("uno", 200), ("three", 200), ("two", 404)):
            assert (await ask(llamasup, model)).status == status
        assert await pid(llamasup, "one") == before


async def test_a_model_that_is_taken_out_answers_to_the_end(operator: Operator) -> None:
    async with operator.runs() as llamasup, llamasup.connect() as client:
        await client.send(request("POST", CHAT, chat(60, model="one")))
        await client.head()
        del operator.tables["models"]["one"]
        operator.write()

        async def is_unknown() -> bool:
            return (await ask(llamasup, "one")).status == 404

        await eventually(is_unknown)
        assert await names(llamasup) == ["one", "two"]
        assert await rest(client) == (counted(60), True)

        async def is_gone() -> bool:
            return await names(llamasup) == ["two"]

        await eventually(is_gone)


async def test_a_bad_file_changes_nothing_and_is_told_once_with_all_its_errors(
    operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with operator.runs() as llamasup:
        good = operator.file.read_text()
        operator.file.write_text(good + "\n[pool]\nturn = -1\nmax_queue = -1\n")
        await said(caplog, "stays as it was")
        await trio.sleep(0.2)  # ten looks
        assert caplog.text.count("stays as it was") == 1
        assert "pool.turn" in caplog.text
        assert "pool.max_queue" in caplog.text
        assert await names(llamasup) == ["one", "two"]
        operator.file.unlink()
        await said(caplog, "there is no such file")
        operator.tables["models"].pop("two")
        operator.write()
        await said(caplog, IN_EFFECT)
        assert await names(llamasup) == ["one"]


async def test_a_file_that_says_the_same_is_not_loaded_again_except_at_a_hangup(
    operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with operator.runs() as llamasup:
        assert (await ask(llamasup, "one")).status == 200
        before = await pid(llamasup, "one")
        operator.write()
        os.utime(operator.file, (1, 1))
        await trio.sleep(0.2)
        assert IN_EFFECT not in caplog.text
        os.kill(os.getpid(), signal.SIGHUP)
        await said(caplog, IN_EFFECT)
        assert await pid(llamasup, "one") == before


async def test_another_address_answers_while_an_old_connection_goes_on(
    operator: Operator, unused_port: int
) -> None:
    async with operator.runs() as llamasup, llamasup.connect() as client:
        await client.send(request("POST", CHAT, chat(60, model="one")))
        await client.head()
        operator.tables["server"]["listen"] = [f"127.0.0.1:{unused_port}"]
        operator.write()
        moved = attrs.evolve(llamasup, address=TcpAddress("127.0.0.1", unused_port))

        async def answers() -> bool:
            try:
                return (await moved.ask("GET", "/health")).status == 200
            except OSError:
                return False

        await eventually(answers)
        assert await rest(client) == (counted(60), True)
        with pytest.raises(OSError, match="all attempts"):
            await llamasup.ask("GET", "/health")


async def test_an_address_that_is_taken_refuses_the_whole_configuration(
    operator: Operator, caplog: pytest.LogCaptureFixture, unused_port: int
) -> None:
    caplog.set_level("INFO")
    operator.tables["server"]["listen"] = [f"127.0.0.1:{unused_port}"]
    async with operator.runs() as llamasup:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listeners[0]:
            port = listeners[0].socket.getsockname()[1]
            operator.tables["server"]["listen"] = [f"127.0.0.1:{port}"]
            operator.tables["models"].pop("two")
            operator.write()
            await said(caplog, f"cannot listen on 127.0.0.1:{port}")
            assert await names(llamasup) == ["one", "two"]
        os.kill(os.getpid(), signal.SIGHUP)
        await said(caplog, IN_EFFECT)
        moved = attrs.evolve(llamasup, address=TcpAddress("127.0.0.1", port))
        assert await names(moved) == ["one"]


@pytest.fixture
async def unused_port() -> int:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port: int = listener.socket.getsockname()[1]
        return port


async def test_numbers_are_in_effect_at_once(operator: Operator) -> None:
    async with operator.runs() as llamasup:
        operator.tables["server"]["keepalive_after"] = 0.1
        operator.tables["pool"] = {"preload": ["two"], "max_queue": 0}
        operator.write()

        async def is_loaded() -> bool:
            return await pid(llamasup, "two") is not None

        await eventually(is_loaded)
        async with llamasup.connect() as client:
            await client.send(request("POST", CHAT, chat(200, model="two")))
            await client.head()
            assert (await ask(llamasup, "two")).status == 429


# --- over HTTP ---


async def shown(llamasup: Llamasup) -> Any:
    reply = await llamasup.ask("GET", "/config", headers=OPERATOR)
    assert reply.status == 200
    return reply.json()


async def test_what_was_shown_can_be_posted_back_with_changes(
    operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    async with operator.runs() as llamasup:
        tables = await shown(llamasup)
        assert KEY not in str(tables)
        tables["models"]["one"]["aliases"] = ["uno"]
        tables["models"].pop("two")
        reply = await llamasup.ask("POST", "/config", tables, headers=OPERATOR)
        assert reply.status == 200, reply.body
        assert "replaces it" in reply.json()["note"]
        assert await names(llamasup) == ["one"]
        assert (await ask(llamasup, "uno")).status == 200
        assert await shown(llamasup) == tables
        operator.tables["models"]["one"]["aliases"] = ["eins"]
        operator.write()

        async def the_file_won() -> bool:
            return await names(llamasup) == ["one", "two"]

        await eventually(the_file_won)
        assert (await ask(llamasup, "uno")).status == 404


async def test_toml_is_understood_as_well(operator: Operator) -> None:
    async with operator.runs() as llamasup:
        tables = await shown(llamasup)
        tables["server"]["default_model"] = "two"
        headers = {**OPERATOR, "Content-Type": "application/toml"}
        reply = await llamasup.ask("POST", "/config", written(tables).encode(), headers)
        assert reply.status == 200, reply.body
        assert (await shown(llamasup))["server"]["default_model"] == "two"


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({}, 401, "admin key"),
        ({"Authorization": "Bearer another"}, 401, "admin key"),
        ({**OPERATOR, "Origin": "http://localhost"}, 403, "web pages"),
        ({**OPERATOR, "Host": "evil.example"}, 403, "evil.example"),
    ],
)
async def test_a_client_that_may_not_see_the_configuration_cannot_change_it_either(
    operator: Operator, headers: dict[str, str], status: int, words: str
) -> None:
    async with operator.runs() as llamasup:
        tables = await shown(llamasup)
        for method, body in (("GET", None), ("POST", {**tables, "models": {}})):
            reply = await llamasup.ask(method, "/config", body, headers)
            assert reply.status == status
            assert words in reply.error["message"]
        assert await shown(llamasup) == tables


async def test_without_an_admin_key_nothing_can_be_posted(operator: Operator) -> None:
    del operator.tables["server"]["admin_key"]
    async with operator.runs() as llamasup:
        reply = await llamasup.ask("POST", "/config", await shown(llamasup), OPERATOR)
    assert reply.status == 403
    assert "server.admin_key" in reply.error["message"]


async def test_what_decides_over_programs_and_files_cannot_be_posted(operator: Operator) -> None:
    async with operator.runs() as llamasup:
        tables = await shown(llamasup)
        tables["engine"]["command"] = "/bin/sh"
        tables["engine"]["env"] = {"LD_PRELOAD": "x"}
        tables["models"]["new"] = {"path": "/etc/passwd"}
        reply = await llamasup.ask("POST", "/config", tables, OPERATOR)
        assert (reply.status, reply.error["code"]) == (403, "forbidden")
        for key in ("engine.command", "engine.env", "models.new.path"):
            assert key in reply.error["message"]
        assert await names(llamasup) == ["one", "two"]


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"{", "not JSON"), (b"[]", "not an object"), (b'{"pool": {"turm": 1}}', "pool.turm")],
)
async def test_what_is_no_configuration_is_told_with_all_that_is_wrong(
    operator: Operator, body: bytes, words: str
) -> None:
    async with operator.runs() as llamasup:
        reply = await llamasup.ask("POST", "/config", body, OPERATOR)
    assert (reply.status, reply.error["code"]) == (400, "invalid_configuration")
    assert words in reply.error["message"]


async def test_a_restart_takes_the_admin_key_where_there_is_one(operator: Operator) -> None:
    async with operator.runs() as llamasup:
        path = "/api/restart?model=one"
        assert (await llamasup.ask("POST", path)).status == 401
        assert (await llamasup.ask("POST", path, headers=OPERATOR)).status == 200


async def test_what_is_configured_for_children_reaches_those_that_run(operator: Operator) -> None:
    operator.tables["recovery"] = {"health_interval": "1h"}
    operator.tables["engine"]["stop_grace"] = "1h"
    async with operator.runs() as llamasup:
        assert (await ask(llamasup, "one")).status == 200
        child = (await llamasup.model_status("one"))["child"]["pid"]
        os.kill(child, signal.SIGSTOP)
        operator.tables["recovery"]["health_interval"] = "0.1s"
        operator.tables["engine"]["stop_grace"] = "0.1s"
        operator.write()
        await eventually(lambda: not is_alive(child))
        assert (await ask(llamasup, "one")).status == 200


async def test_another_bound_for_what_requests_hold_counts_at_once(operator: Operator) -> None:
    operator.tables["server"]["max_buffered"] = "4MiB"
    async with operator.runs() as llamasup, AsyncExitStack() as clients:
        assert (await ask(llamasup, "one")).status == 200
        for _ in range(40):  # their heads take what one client may have
            client = await clients.enter_async_context(llamasup.connect())
            await client.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 60_000)
        client = await clients.enter_async_context(llamasup.connect())
        await client.send(request("POST", "/tokenize", {"model": "one", "content": "x" * 20_000}))
        with trio.move_on_after(0.5) as waits:
            await client.reply()
        assert waits.cancelled_caught
        operator.tables["server"]["max_buffered"] = "64MiB"
        operator.write()
        assert (await client.reply()).status == 200
