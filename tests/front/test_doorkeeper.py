"""Who has a key is let in, as far as the key goes; and the key goes no further than the door."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from llamasup.access.consumption import Consumption
from llamasup.access.keyring import Caller
from llamasup.access.rights import Need, need_of_page
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config, KeySettings, Server
from llamasup.config.secrets import hash_of
from llamasup.errors import Forbidden, InvalidKey, ModelForbidden, RateLimited
from llamasup.events import Journal as Told
from llamasup.events import Phase, RequestCancelled, RequestEnded, Usage
from llamasup.front.doorkeeper import Doorkeeper
from llamasup.front.routes import Router
from llamasup.front.table import TABLE, Page
from llamasup.http.requests import Request
from llamasup.models.names import Choice
from llamasup.pool.pool import Pool
from tests.harness import Journal, Reply, chat, eventually, request, running

Faking = Callable[..., Mapping[str, object]]

ALICE, OPERATOR = "sk-the-key-of-alice", "sk-the-key-of-the-operator"
AS_ALICE = {"Authorization": f"Bearer {ALICE}"}
AS_OPERATOR = {"x-api-key": OPERATOR}
KEYS: Mapping[str, object] = {
    "keys.alice.key": ALICE,
    "keys.boss.key": OPERATOR,
    "keys.boss.operator": True,
}
CHAT = "/v1/chat/completions"
LAN = "192.0.2.7"
POOL = cast(Pool, SimpleNamespace(consumption=Consumption()))


def settings(**more: object) -> KeySettings:
    return KeySettings(key_hash=hash_of(ALICE.encode()), **more)  # type: ignore[arg-type]


def door(*, admin_key: str = "", **keys: KeySettings) -> tuple[Doorkeeper, InEffect, Told]:
    in_effect, told = InEffect(Config(server=Server(admin_key=admin_key), keys=keys)), Told()
    return (
        Doorkeeper(in_effect, told, POOL),
        in_effect,
        told,
    )


def let_in(
    keeper: Doorkeeper, method: bytes, target: bytes, key: str = "", peer: str = LAN
) -> Caller | None:
    headers = [(b"x-api-key", key.encode())] if key else []
    asked = Request(method, target, headers, True, False, b"id", b"{}")
    return keeper.let_in(asked, Router().route(asked), peer)


# --- without keys ---


@pytest.mark.parametrize(
    "target",
    [
        *(b"/config", b"/api/restart", b"/slots/0", b"/props"),
        *(b"/upstream/m/slots/0", b"/upstream/m/%73lots/0", b"/upstream/a/b/slots%2f0/"),
    ],
)
def test_without_keys_only_this_machine_may_change_anything(target: bytes) -> None:
    keeper, _, _ = door()
    assert let_in(keeper, b"POST", target, peer="127.0.0.1") is None
    with pytest.raises(Forbidden, match="only clients on this machine"):
        let_in(keeper, b"POST", target)


def test_without_keys_everybody_may_look_and_ask() -> None:
    keeper, _, _ = door()
    for method, target in ((b"GET", b"/api/status"), (b"GET", b"/slots"), (b"POST", b"/infill")):
        assert let_in(keeper, method, target, "whatever") is None


def test_with_an_admin_key_alone_control_sees_to_its_own_pages() -> None:
    keeper, _, _ = door(admin_key="admin")
    assert let_in(keeper, b"POST", b"/config") is None
    with pytest.raises(Forbidden):
        let_in(keeper, b"POST", b"/slots/0")


# --- with keys ---


def test_a_page_is_for_all_for_those_with_a_key_or_for_operators() -> None:
    boss = KeySettings(key_hash=hash_of(OPERATOR.encode()), operator=True)
    keeper, _, _ = door(alice=settings(), boss=boss)
    assert let_in(keeper, b"GET", b"/health") is None
    assert let_in(keeper, b"GET", b"/health", "wrong") is None
    for target in (b"/v1/models", b"/modelFits"):
        with pytest.raises(InvalidKey):
            let_in(keeper, b"GET", target, peer="127.0.0.1")
    assert let_in(keeper, b"GET", b"/v1/models", ALICE)
    with pytest.raises(Forbidden, match='"alice" is no operator'):
        let_in(keeper, b"GET", b"/modelFits", ALICE)
    assert let_in(keeper, b"GET", b"/modelFits", OPERATOR)
    assert let_in(keeper, b"POST", b"/slots/0", OPERATOR)


def test_the_admin_key_is_for_control_to_see() -> None:
    """Which counts the wrong ones, and makes who guesses wait."""
    keeper, _, _ = door(admin_key="admin", alice=settings())
    assert let_in(keeper, b"POST", b"/config", "admin") is None
    for method, target in ((b"POST", b"/infill"), (b"GET", b"/slots"), (b"GET", b"/v1/models")):
        with pytest.raises(InvalidKey):
            let_in(keeper, method, target, "admin")


def test_a_key_that_changes_while_its_request_waits_counts_as_it_is_now() -> None:
    keeper, in_effect, _ = door(alice=settings())
    alice = let_in(keeper, b"POST", b"/infill", ALICE)
    assert alice is not None
    choice = Choice("qwen", "qwen")
    keeper.confirm(alice, choice)
    for keys, error in (
        ({"alice": settings(models=("llama",))}, ModelForbidden),
        ({"alice": settings(expires=1.0)}, InvalidKey),
        ({}, InvalidKey),
    ):
        in_effect.replace(Config(keys=keys))
        keeper.renew()
        with pytest.raises(error):
            keeper.confirm(alice, choice)


async def test_an_answer_is_charged_when_it_is_over_however_it_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    keeper, in_effect, told = door(alice=settings(tokens_per_minute=600))
    alice = let_in(keeper, b"POST", b"/infill", ALICE)
    assert alice is not None
    told.tell(RequestEnded("id", "m", 1.0, Usage(200, 100, "stop", 50), LAN, "alice"))
    assert b"x-ratelimit-remaining-tokens: 350" in keeper.lines(alice)[0]
    told.tell(RequestCancelled("id", "m", Phase.ANSWERING, 1.0, Usage(0, 400, ""), LAN, "alice"))
    told.tell(RequestEnded("id", "m", 1.0, None, LAN, "alice"))
    told.tell(RequestEnded("id", "m", 1.0, Usage(9, 9, "stop"), LAN, "somebody else"))
    with pytest.raises(RateLimited):
        keeper.enter(alice)
    await trio.sleep(6)
    keeper.enter(alice)
    in_effect.replace(Config(keys={"alice": settings()}))
    keeper.renew()
    assert RequestEnded not in told.heard  # so that requests need not be followed any more


# --- through the whole house ---


def codes(*replies: Reply) -> list[tuple[int, str]]:
    return [(reply.status, reply.error["code"]) for reply in replies]


async def test_a_key_lets_in_and_reaches_no_engine(faking: Faking) -> None:
    ways = [
        AS_ALICE,
        {"x-api-key": ALICE},
        {"Authorization": "Basic " + b64encode(f"me:{ALICE}".encode()).decode()},
        {**AS_ALICE, "x-api-key": OPERATOR},
    ]
    # This engine asks for keys itself, and so gets what clients send it; but never ours.
    asking = faking("--fake-echo", "--api-key", "of-the-engine")
    async with running({**asking, **KEYS}) as llamasup:
        for way in ways:
            reply = await llamasup.ask("POST", "/tokenize", {}, way)
            assert reply.status == 200
            assert ALICE not in reply.body.decode()
            assert OPERATOR not in reply.body.decode()
            assert {name.lower() for name, _ in reply.json()["headers"]}.isdisjoint(
                {"authorization", "x-api-key", "x-llamasup-key"}
            )
        both = {"x-api-key": ALICE, "Authorization": "Bearer of-the-engine"}
        reply = await llamasup.ask("POST", "/tokenize", {}, both)
        assert ["authorization", "Bearer of-the-engine"] in [
            [name.lower(), value] for name, value in reply.json()["headers"]
        ]


async def test_without_a_key_nothing_is_loaded_and_every_api_says_it_in_its_own_form(
    faking: Faking, journal: Journal
) -> None:
    async with running({**faking(), **KEYS}) as llamasup:
        openai = await llamasup.ask("POST", CHAT, chat(1))
        assert codes(openai) == [(401, "invalid_api_key")]
        assert openai.headers["www-authenticate"] == "Bearer"
        anthropic = await llamasup.ask("POST", "/v1/messages", chat(1), {"x-api-key": "wrong"})
        assert (anthropic.status, anthropic.error["type"]) == (401, "authentication_error")
        engine = await llamasup.ask("POST", "/completion", {"prompt": "x"})
        assert codes(engine) == [(401, "invalid_api_key")]
        assert not journal.entries()
        alive = await llamasup.ask("GET", "/health")
        assert (alive.status, alive.json()) == (200, {"status": "ok"})


async def test_a_stranger_s_large_body_is_refused_before_it_is_read(faking: Faking) -> None:
    async with running({**faking(), **KEYS}) as llamasup, llamasup.connect() as client:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n"
        await client.send(head.encode())
        reply = await client.reply()
        assert codes(reply) == [(401, "invalid_api_key")]
        assert reply.headers["connection"] == "close"


async def test_a_key_sees_and_uses_its_own_models_alone(faking: Faking) -> None:
    models = {**faking(name="open-a"), **faking(name="secret-b")}
    async with running({**models, **KEYS, "keys.alice.models": ["open-*"]}) as llamasup:
        listing = await llamasup.ask("GET", "/v1/models", headers=AS_ALICE)
        assert [entry["id"] for entry in listing.json()["data"]] == ["open-a"]
        listing = await llamasup.ask("GET", "/v1/models", headers=AS_OPERATOR)
        assert len(listing.json()["data"]) == 2
        assert (
            codes(
                await llamasup.ask("POST", CHAT, chat(1, model="secret-b"), AS_ALICE),
                await llamasup.ask("POST", CHAT, chat(1, model="SECRET-B.gguf"), AS_ALICE),
                await llamasup.ask("GET", "/v1/models/secret-b", headers=AS_ALICE),
            )
            == [(403, "model_not_allowed")] * 3
        )
        assert (await llamasup.ask("POST", CHAT, chat(1, model="open-a"), AS_ALICE)).status == 200


async def test_a_key_learns_no_name_of_a_model_that_it_may_not_use(faking: Faking) -> None:
    models = {**faking(name="open-a"), **faking(name="secret-b")}
    async with running({**models, **KEYS, "keys.alice.models": ["open-*"]}) as llamasup:
        for method, path, body in (
            ("POST", CHAT, chat(1, model="secret-c")),
            ("POST", CHAT, chat(1)),
            ("POST", "/api/chat", chat(1, model="secret-c")),
            ("POST", "/api/show", {"model": "secret-c"}),
            ("POST", "/upstream/secret-c/tokenize", {}),
            ("GET", "/v1/models/secret-c", None),
        ):
            reply = await llamasup.ask(method, path, body, AS_ALICE)
            assert reply.status in (400, 404)
            assert b"secret-b" not in reply.body
            told = await llamasup.ask(method, path, body, AS_OPERATOR)
            assert (told.status, b"secret-b" in told.body) == (reply.status, True)


async def test_operators_pages_are_for_operators(faking: Faking) -> None:
    posing = {**AS_ALICE, "x-llamasup-key": "boss"}
    async with running({**faking(), **KEYS, "server.admin_key": "of-the-admin"}) as llamasup:
        for path in ("/api/status", "/config"):
            assert (await llamasup.ask("GET", path, headers=AS_OPERATOR)).status == 200
            as_admin = {"Authorization": "Bearer of-the-admin"}
            assert (await llamasup.ask("GET", path, headers=as_admin)).status == 200
            assert codes(
                await llamasup.ask("GET", path, headers=posing),
                await llamasup.ask("GET", path, headers={"x-llamasup-key": "boss"}),
            ) == [(403, "forbidden"), (401, "unauthorized")]
        shown = await llamasup.ask("GET", "/config", headers=AS_OPERATOR)
        assert "sha256" not in shown.body.decode()
        assert "alice" not in shown.body.decode()
        posted = await llamasup.ask("POST", "/config", shown.json(), AS_OPERATOR)
        assert posted.status == 200
        assert (await llamasup.ask("POST", "/tokenize", {}, AS_ALICE)).status == 200
        adding = {**shown.json(), "keys": {"eve": {"key": "sk-the-key-of-eve"}}}
        assert codes(await llamasup.ask("POST", "/config", adding, AS_OPERATOR)) == [
            (403, "forbidden")
        ]


async def test_where_there_are_keys_a_stranger_reaches_no_page_of_operators(
    faking: Faking,
) -> None:
    """An admin key leaves it to control to see who asks, so control has to see to every page."""
    as_admin = {"Authorization": "Bearer of-the-admin"}
    async with running({**faking(), **KEYS, "server.admin_key": "of-the-admin"}) as llamasup:
        named = {"model": "fake"}
        for route in TABLE:
            path = route.path.decode()
            if isinstance(route.goal, Page) and need_of_page(route.path) is Need.OPERATOR:
                for method in route.methods:
                    if method != b"HEAD":
                        reply = await llamasup.ask(method.decode(), path, named)
                        assert (path, reply.status) == (path, 401)
        for path in ("/models/load", "/models/unload"):
            assert (await llamasup.ask("POST", path, named, as_admin)).status == 200
        offered = await llamasup.ask("GET", "/api/offers", headers=as_admin)
        assert [*offered.json()["models"]] == ["fake"]


async def test_answers_and_refusals_tell_how_much_is_left(faking: Faking) -> None:
    limited = {"keys.alice.requests_per_minute": 2}
    async with running({**faking(), **KEYS, **limited}) as llamasup:
        left = []
        for _ in range(3):
            reply = await llamasup.ask("POST", CHAT, chat(1), AS_ALICE)
            left.append((reply.status, reply.headers["x-ratelimit-remaining-requests"]))
        assert left == [(200, "1"), (200, "0"), (429, "0")]
        assert codes(reply) == [(429, "rate_limit_exceeded")]
        assert int(reply.headers["retry-after"]) in range(25, 41)  # 30 s, and 10 at most to spread
        assert reply.headers["x-ratelimit-limit-requests"] == "2"
        assert (await llamasup.ask("GET", "/v1/models", headers=AS_ALICE)).status == 200
        assert (await llamasup.ask("POST", CHAT, chat(1), AS_OPERATOR)).status == 200


async def test_who_leaves_makes_room_for_the_next_request_of_its_key(faking: Faking) -> None:
    one = {"keys.alice.at_once": 1}
    async with running({**faking("--fake-first-byte-delay", "60"), **KEYS, **one}) as llamasup:
        async with llamasup.connect() as first:
            await first.send(request("POST", CHAT, chat(1), AS_ALICE))
            async with llamasup.connect() as second:

                async def refused() -> bool:
                    await second.send(request("POST", CHAT, chat(1), AS_ALICE))
                    return (await second.reply()).status == 429

                assert await refused()
        with trio.fail_after(10):
            async with llamasup.connect() as third:
                while True:
                    await third.send(request("POST", CHAT, chat(1), AS_ALICE))
                    with trio.move_on_after(0.5):
                        assert (await third.reply()).status == 429
                        continue
                    break  # it waits for its answer


async def test_a_key_that_is_taken_out_of_its_file_is_not_valid_any_more(
    faking: Faking, tmp_path: Path, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    keys = tmp_path / "keys.toml"
    tables = {
        name: f'[keys.{name}]\nkey_hash = "{hash_of(key.encode())}"\n'
        for name, key in (("alice", ALICE), ("boss", OPERATOR))
    }
    keys.write_text("".join(tables.values()))
    slow = faking("--fake-first-byte-delay", "60", parallel=1)
    async with running({**slow, "server.keys_file": str(keys)}) as llamasup:
        assert (await llamasup.ask("GET", "/v1/models", headers=AS_ALICE)).status == 200
        async with llamasup.connect() as working, llamasup.connect() as waiting:
            await working.send(request("POST", CHAT, chat(1), AS_OPERATOR))
            await journal.first("request")
            await waiting.send(request("POST", CHAT, chat(1), AS_ALICE))
            keys.write_text(tables["boss"])

            async def is_refused() -> bool:
                reply = await llamasup.ask("GET", "/v1/models", headers=AS_ALICE)
                return reply.status == 401

            with trio.fail_after(20):
                while not await is_refused():
                    await trio.sleep(0.1)
            working.leave_by_reset()
            assert codes(await waiting.reply()) == [(401, "invalid_api_key")]
        keys.write_text("")  # a full disk opens no door
        await eventually(lambda: "it holds no key" in caplog.text)
        assert await is_refused()


# --- web pages ---


async def test_a_page_can_send_its_key_and_read_every_header_and_every_error(
    faking: Faking,
) -> None:
    page = {"Origin": "http://localhost:3000"}
    wanted = "authorization,x-api-key,anthropic-version,anthropic-beta,x-stainless-os"
    async with running({**faking(), **KEYS, "server.max_body": "100KiB"}) as llamasup:
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": wanted}
        preflight = await llamasup.ask("OPTIONS", CHAT, headers={**page, **asks})
        assert preflight.status == 204  # a preflight never has a key
        assert preflight.headers["access-control-allow-headers"] == wanted
        too_large = {**page, **AS_ALICE, "Content-Length": "999999999"}
        for reply, status in (
            (await llamasup.ask("POST", CHAT, chat(1), {**page, **AS_ALICE}), 200),
            (await llamasup.ask("POST", CHAT, chat(1), page), 401),
            (await llamasup.ask("POST", CHAT, None, too_large), 413),
            (await llamasup.ask("POST", CHAT, None, {**page, "Content-Length": "99999"}), 401),
            (await llamasup.ask("GET", "/nope", headers=page), 404),
        ):
            assert reply.status == status
            assert reply.headers["access-control-allow-origin"] == page["Origin"]
            assert reply.headers["access-control-expose-headers"] == "*"


async def test_a_browser_that_shows_a_page_asks_its_user_for_a_key(faking: Faking) -> None:
    async with running({**faking(), **KEYS}) as llamasup:
        browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
        reply = await llamasup.ask("GET", "/upstream/fake/", headers=browser)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, 'Basic realm="llamasup"')


async def test_an_engine_s_own_pages_need_what_they_need_elsewhere(faking: Faking) -> None:
    async with running({**faking("--fake-echo"), **KEYS}) as llamasup:
        for slots in ("slots", "%73lots"):
            path = f"/upstream/fake/{slots}/0?action=erase"
            assert codes(await llamasup.ask("POST", path, {}, AS_ALICE)) == [(403, "forbidden")]
            assert (await llamasup.ask("POST", path, {}, AS_OPERATOR)).status == 200
        kept = await llamasup.ask("POST", "/upstream/fake/tokenize", {}, AS_ALICE)
        assert (kept.status, ALICE in kept.body.decode()) == (200, False)


async def test_a_key_that_expires_within_an_answer_does_not_cut_it(
    faking: Faking, monkeypatch: pytest.MonkeyPatch
) -> None:
    expires = datetime(2027, 1, 1, tzinfo=UTC)
    clock = SimpleNamespace(time=lambda: expires.timestamp() - 1)
    monkeypatch.setattr("llamasup.front.doorkeeper.time", clock)
    slow = {**faking("--fake-token-delay", "0.02"), "keys.alice.expires": expires.isoformat()}
    async with running({**slow, **KEYS}) as llamasup, llamasup.connect() as client:
        await client.send(request("POST", CHAT, chat(20), AS_ALICE))
        status, _ = await client.head()
        clock.time = expires.timestamp
        rest, complete = await client.chunks()
        assert (status, complete) == (200, True)
        assert b"[DONE]" in rest
        assert codes(await llamasup.ask("POST", CHAT, chat(1), AS_ALICE)) == [
            (401, "invalid_api_key")
        ]
