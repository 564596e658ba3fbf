"""A request is let in or not, finds its goal, and is passed on without what is not for engines."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping

import pytest

from tests.harness import Journal, Llamasup, Reply, chat, request, running

Faking = Callable[..., Mapping[str, object]]

CHAT = "/v1/chat/completions"


def echoed(reply: Reply) -> dict[str, str]:
    """The headers that reached the engine."""
    return {name.lower(): value for name, value in reply.json()["headers"]}


# --- goals ---


async def test_a_body_that_is_not_json_loads_no_model(faking: Faking, journal: Journal) -> None:
    async with running(faking()) as llamasup:
        for body in (b"{", b"no", b"[" * 100_000, gzip.compress(b"{}")):
            assert (await llamasup.ask("POST", "/v1/chat/completions", body)).status == 400
        assert not journal.entries()


async def test_several_models_and_none_named_is_an_error_that_lists_them(faking: Faking) -> None:
    async with running({**faking(name="one"), **faking(name="two")}) as llamasup:
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(1))
        assert reply.status == 400
        assert '"one", "two"' in reply.error["message"]


# --- what is passed on ---


async def test_a_request_id_is_the_same_for_client_and_engine(faking: Faking) -> None:
    async with running(faking("--fake-echo")) as llamasup:
        kept = await llamasup.ask("POST", "/tokenize", {}, {"X-Request-ID": "mine-1"})
        assert kept.headers["x-request-id"] == echoed(kept)["x-request-id"] == "mine-1"
        for unfit in ({}, {"X-Request-ID": "not a sane one"}):
            made = await llamasup.ask("POST", "/tokenize", {}, unfit)
            assert len(made.headers["x-request-id"]) == 16
            assert made.headers["x-request-id"] == echoed(made)["x-request-id"]
        failed = await llamasup.ask("GET", "/nope", headers={"X-Request-ID": "mine-2"})
        assert failed.headers["x-request-id"] == "mine-2"


async def test_what_is_for_us_alone_does_not_reach_the_engine(faking: Faking) -> None:
    ours = {
        "Connection": "X-Named",
        "X-Named": "1",
        "Keep-Alive": "timeout=5",
        "TE": "trailers",
        "Upgrade": "websocket",
        "X-Conversation-Id": "1",
    }
    async with running(faking("--fake-echo")) as llamasup:
        seen = echoed(await llamasup.ask("POST", "/tokenize", {}, {**ours, "X-Kept": "yes"}))
        assert seen["x-kept"] == "yes"
        assert seen["connection"] == "close"
        assert not {name.lower() for name in ours if name != "Connection"} & seen.keys()


async def test_a_path_prefix_is_stripped_before_the_engine_sees_it(faking: Faking) -> None:
    prefixed = {**faking("--fake-echo"), "server.path_prefixes": ["/olla/llamacpp"]}
    async with running(prefixed) as llamasup:
        reply = await llamasup.ask("POST", "/olla/llamacpp/tokenize?a=b", {})
        assert reply.json()["target"] == "/tokenize?a=b"
        assert (await llamasup.ask("GET", "/olla/llamacpp/health")).status == 200
        assert (await llamasup.ask("GET", "/olla/health")).status == 404


# --- the pages of engines ---


def renamed(config: Mapping[str, object], name: str) -> dict[str, object]:
    """The same with another name for the model "fake"; no file could have this name."""
    return {key.replace(".fake.", f".{name}."): value for key, value in config.items()}


async def test_an_engines_own_paths_reach_it_as_they_are(faking: Faking) -> None:
    config = renamed(faking("--fake-echo", aliases=["short"]), "o/n x") | faking(name="other")
    async with running({**config, "server.path_prefixes": ["/p"]}) as llamasup:
        for named in ("o/n%20x", "o%2Fn%20x", "SHORT", "o/n%20x:latest"):
            for path in ("/", "/_app/new.js?v=1", "/a//b/", "/%2e"):
                reply = await llamasup.ask("GET", f"/p/upstream/{named}{path}")
                assert (reply.status, reply.json()["target"]) == (200, path)
        posted = await llamasup.ask("POST", "/upstream/short/new", b"not JSON")
        assert (posted.status, posted.json()["target"]) == (200, "/new")


async def test_a_name_that_is_only_like_a_models_reaches_its_engine(faking: Faking) -> None:
    """Such a path led to itself with one more slash, for ever."""
    async with running(faking("--fake-echo")) as llamasup:
        reply = await llamasup.ask("GET", "/upstream/openai%2Ffake/a/b")
        assert (reply.status, reply.json()["target"]) == (200, "/a/b")
        reply = await llamasup.ask("GET", "/upstream//a/b")
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")


async def test_a_model_without_a_slash_leads_to_its_page(faking: Faking, journal: Journal) -> None:
    async with running(renamed(faking(), "o/n:x") | faking(name="other")) as llamasup:
        for method in ("GET", "POST"):
            reply = await llamasup.ask(method, "/upstream/o/n:x?q=1")
            assert (reply.status, reply.headers["location"]) == (308, "./n:x/?q=1")
            assert not reply.body
        assert not journal.entries()


async def test_an_engine_of_no_model_is_told_with_near_ones(faking: Faking) -> None:
    async with running({**faking(), "server.unknown_model": "default"}) as llamasup:
        reply = await llamasup.ask("GET", "/upstream/fakee/props")
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
        assert 'did you mean "fake"' in reply.error["message"]


async def test_a_look_at_an_engines_own_paths_loads_nothing(
    faking: Faking, journal: Journal
) -> None:
    async with running(faking()) as llamasup:
        for path in ("/props", "/v1/models", "/slots", "/health", "/metrics"):
            for method in ("GET", "HEAD"):
                async with llamasup.connect() as client:
                    await client.send(request(method, f"/upstream/fake{path}"))
                    assert (await client.reply(to_head=method == "HEAD")).status == 503
        assert not journal.entries()
        assert (await llamasup.ask("GET", "/upstream/fake/props?autoload=true")).status == 200
        assert (await llamasup.ask("GET", "/upstream/fake/props")).status == 200


# --- forms ---


@pytest.mark.parametrize("size", [1000, 3 << 20])
async def test_a_form_with_a_file_reaches_the_model_that_its_last_field_names(
    faking: Faking, size: int
) -> None:
    disposition = b'--edge\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    sound = bytes(range(256)) * (size // 256)
    form = disposition % (b'file"; filename="a.wav', sound) + disposition % (b"model", b"ears")
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    async with running({**faking(), **faking("--fake-echo", name="ears")}) as llamasup:
        for path in ("/v1/audio/transcriptions", "/audio/translations", "/v1/images/edits/"):
            reply = await llamasup.ask("POST", path, form + b"--edge--\r\n", headers)
            assert reply.status == 200
            assert reply.headers["x-llamasup-model"] == "ears"
            assert int(echoed(reply)["content-length"]) == len(form) + len(b"--edge--\r\n")
        assert (await llamasup.model_status("fake"))["loads"] == 0


# --- names that mean no model ---


async def test_an_unknown_name_goes_to_the_default_model_if_the_operator_wants_that(
    faking: Faking,
) -> None:
    config = {**faking("--fake-echo"), **faking(name="other"), "server.default_model": "fake"}
    async with running(config) as llamasup:
        assert (await llamasup.ask("POST", CHAT, chat(1, model="gpt-4o"))).status == 404
    async with running({**config, "server.unknown_model": "default"}) as llamasup:
        assert (await llamasup.ask("POST", CHAT, chat(1, model="gpt-4o"))).status == 200
        assert (await llamasup.model_status("fake"))["loads"] == 1
        for method, path in (("GET", "/v1/models/gpt-4o"), ("POST", "/api/restart?model=gpt-4o")):
            assert (await llamasup.ask(method, path)).status == 404


async def test_without_a_default_an_unknown_name_is_refused_all_the_same(faking: Faking) -> None:
    config = {**faking(), **faking(name="other"), "server.unknown_model": "default"}
    async with running(config) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(1, model="gpt-4o"))
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")


# --- what is told of its way ---


async def test_an_answer_tells_who_gave_it_after_how_long(faking: Faking) -> None:
    script = ["--fake-load-seconds", "0.3"]
    async with running(faking(*script)) as llamasup:
        for stream in (False, True):
            reply = await llamasup.ask("POST", CHAT, chat(2, stream=stream), {"X-Request-ID": "a"})
            assert reply.headers["x-llamasup-model"] == "fake"
            pid = (await llamasup.model_status("fake"))["child"]["pid"]
            assert reply.headers["x-llamasup-instance"] == f"fake[{pid}]"
            assert reply.headers["x-llamasup-request-id"] == reply.headers["x-request-id"] == "a"
            assert reply.headers["x-llamasup-replays"] == "0"
            assert reply.headers["via"].startswith("1.1 llamasup")
            waited = int(reply.headers["x-llamasup-queue-ms"])
            assert int(reply.headers["x-llamasup-time-ms"]) >= waited
            assert (waited >= 300) is (not stream)  # the first one waited for the load
            assert not [name for name in reply.headers if "olla-" in name]


async def test_under_a_prefix_of_ollas_an_answer_has_ollas_headers_too(faking: Faking) -> None:
    prefixed = {**faking(), "server.path_prefixes": ["/olla/llamacpp"]}
    async with running(prefixed) as llamasup:
        headers = (await llamasup.ask("POST", f"/olla/llamacpp{CHAT}", chat(2))).headers
        assert headers["x-olla-model"] == headers["x-llamasup-model"]
        assert headers["x-olla-endpoint"] == headers["x-llamasup-instance"]
        assert headers["x-olla-request-id"] == headers["x-request-id"]
        assert headers["x-olla-backend-type"] == "llamacpp"
        assert int(headers["x-olla-response-time"]) >= 0


async def test_an_answer_of_the_second_engine_tells_that_it_was_a_replay(
    faking: Faking, journal: Journal
) -> None:
    script = ["--fake-die-at-byte", "-1", "--fake-scripted-lives", "1"]
    async with running(faking(*script)) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(2))
        assert reply.status == 200
        assert reply.headers["x-llamasup-replays"] == "1"
        second = journal.entries("started")[1]["pid"]
        assert reply.headers["x-llamasup-instance"] == f"fake[{second}]"


async def test_an_engines_error_passes_untouched_with_its_own_retry_after(faking: Faking) -> None:
    body = b'{"error":{"code":429,"message":"too much","type":"x"}}'
    raw = b"HTTP/1.1 429 X\r\nRetry-After: 17\r\nX-LLAMASUP-Model: lie\r\n"
    raw += b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with running(faking("--fake-raw")) as llamasup:
        reply = await llamasup.ask("POST", CHAT, {"raw": raw.decode()})
        assert (reply.status, reply.body) == (429, body)
        assert reply.headers["retry-after"] == "17"
        assert reply.headers["x-llamasup-model"] == "fake"
        assert "x-should-retry" not in reply.headers


async def test_an_error_tells_what_is_known_and_whether_to_try_again(faking: Faking) -> None:
    async with running(faking("--fake-die-at-byte", "-1", "--fake-death", "close")) as llamasup:
        unknown = await llamasup.ask("POST", CHAT, chat(1, model="nobody"))
        assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
        assert unknown.headers["x-should-retry"] == "false"
        assert "retry-after" not in unknown.headers
        assert "x-llamasup-model" not in unknown.headers
        lost = await llamasup.ask("POST", CHAT, chat(1))
        assert (lost.status, lost.error["code"]) == (502, "engine_lost")
        assert lost.headers["x-llamasup-model"] == "fake"
        assert lost.headers["x-llamasup-replays"] == "1"
        assert int(lost.headers["retry-after"]) == 2
        assert 1000 <= int(lost.headers["retry-after-ms"]) <= 1500
        assert "x-should-retry" not in lost.headers


# --- CORS ---

PAGE = {"Origin": "https://page.example"}
ALLOWED = "access-control-allow-origin"


async def preflight(llamasup: Llamasup) -> Reply:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-mine"}
    return await llamasup.ask("OPTIONS", "/v1/chat/completions", headers={**PAGE, **asks})


async def test_every_page_may_ask_where_any_origin_is_allowed(
    faking: Faking, journal: Journal
) -> None:
    async with running({**faking("--fake-echo"), "server.cors_origins": ["*"]}) as llamasup:
        reply = await preflight(llamasup)
        assert reply.status == 204
        assert reply.headers[ALLOWED] == "*"
        assert reply.headers["access-control-allow-headers"] == "x-mine"
        assert "POST" in reply.headers["access-control-allow-methods"]
        assert not journal.entries()
        for path in ("/health", "/nope"):
            assert (await llamasup.ask("GET", path, headers=PAGE)).headers[ALLOWED] == "*"
        assert ALLOWED not in (await llamasup.ask("GET", "/health")).headers


async def test_a_page_that_is_listed_may_ask(faking: Faking) -> None:
    listed = {**faking(), "server.cors_origins": ["https://page.example"]}
    async with running(listed) as llamasup:
        for reply in (
            await preflight(llamasup),
            await llamasup.ask("GET", "/health", headers=PAGE),
        ):
            assert reply.headers[ALLOWED] == PAGE["Origin"]


async def test_a_page_of_strangers_is_refused_before_anything_is_done(
    faking: Faking, journal: Journal
) -> None:
    """A POST of text/plain needs no preflight: what it asked for was done, and only hidden."""
    async with running(faking("--fake-echo")) as llamasup:
        text = {**PAGE, "Content-Type": "text/plain"}
        for reply in (
            await preflight(llamasup),
            await llamasup.ask("GET", "/health", headers=PAGE),
            await llamasup.ask("POST", "/v1/chat/completions", {"messages": []}, text),
        ):
            assert (reply.status, reply.error["code"]) == (403, "forbidden")
            assert "server.cors_origins" in reply.error["message"]
            assert ALLOWED not in reply.headers
        assert not journal.entries()


async def test_an_engine_hears_no_keys_of_clients_unless_it_asks_for_them(faking: Faking) -> None:
    secrets = {"Authorization": "Bearer mine", "X-Api-Key": "mine", "Cookie": "me=1", "X-Its": "1"}
    for script, heard in (
        ([], {"x-its"}),
        (["--api-key", "k"], {name.lower() for name in secrets}),
    ):
        async with running(faking("--fake-echo", *script)) as llamasup:
            said = (await llamasup.ask("POST", "/tokenize", {}, secrets)).json()["headers"]
            assert {name.lower() for name, _ in said} & {n.lower() for n in secrets} == heard
