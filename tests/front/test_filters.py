"""Bodies are put under filters, small and large ones alike, in memory and on disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from llamasup.config.schema import ModelSettings, Params
from llamasup.errors import ClientError
from llamasup.front.filters import Edited, put_under
from llamasup.front.json_wishes import JsonReader
from llamasup.front.wishes import Member, Wishes
from llamasup.http.requests import Request, Stored
from llamasup.models.params import Filter, filter_of
from llamasup.pool.work import Work
from tests.harness import Journal, Llamasup, chat, request, running

Faking = Callable[..., Mapping[str, object]]


def rules(**said: Any) -> Filter:
    found = filter_of(ModelSettings(path=Path("x.gguf"), **said))
    assert found is not None
    return found


SET = rules(set_params=Params({"t": 1, "kw": {"think": True}}), strip_params=("seed",))
FILL = rules(default_params=Params({"t": 1}))


class OnDisk:
    """A stored body whose pieces are of this size."""

    def __init__(self, content: bytes, piece: int) -> None:
        self._content = content
        self._piece = piece
        self.read_from: set[int] = set()

    def __len__(self) -> int:
        return len(self._content)

    async def read(self, at: int) -> bytes:
        self.read_from.add(at)
        return self._content[at : at + self._piece]


def asked(body: bytes | Stored, content_type: bytes = b"application/json") -> Request:
    headers = [(b"content-type", content_type)]
    return Request(b"POST", b"/x", headers, keep_alive=True, http_1_0=False, id=b"1", body=body)


async def whole(body: bytes | bytearray | Stored) -> bytes:
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    content = b""
    while piece := await body.read(len(content)):
        content += piece
    assert len(content) == len(body)
    return content


def searched(body: bytes, cuts: Sequence[int] = ()) -> Wishes:
    """What is known of a large body that came cut like this."""
    reader = JsonReader()
    edges = sorted({min(cut, len(body)) for cut in cuts} | {0, len(body)})
    for start, stop in pairwise(edges):
        reader.feed(body[start:stop])
    return reader.end()


async def put(rules: Filter, body: bytes, work: Work = Work.GENERATE) -> bytes:
    """What is sent of a small body."""
    small = asked(bytearray(body))
    await put_under(rules, small, None, work)
    return await whole(small.body)


async def put_large(rules: Filter, body: bytes, piece: int = 7, cuts: Sequence[int] = ()) -> bytes:
    """What is sent of a large body."""
    large = asked(OnDisk(body, piece))
    await put_under(rules, large, searched(body, cuts), Work.GENERATE)
    return await whole(large.body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"t": 2, "x": [1, {"t": 5}], "seed": 7}',
        b'{"x":1}',
        b"{}",
        b" \n{ } ",
        b'{"t":2,"\\u0074":3,"x":{},"t":4,"s\\u0065ed":1}',
        b'{"seed":1}',
        b'{"a": 1e400, "seed":1, "b": 12345678901234567890, "kw" : { "a" : 1 } , "c":"\\"}"}',
        b'\xef\xbb\xbf{"t": 2}',
        b'{"kw": "no table"}',
        b'{"' + b"k" * 9000 + b'": 1, "t": 2}',
    ],
)
async def test_a_large_body_becomes_what_a_small_one_becomes(body: bytes) -> None:
    small, large = await put(SET, body), await put_large(SET, body)
    assert json.loads(large) == json.loads(small)
    assert json.loads(large)["t"] == 1
    assert json.loads(large)["kw"]["think"] is True
    assert b"seed" not in large
    for written in (b"1e400", b"12345678901234567890", b'"c":"\\"}"'):
        assert (written in body) == (written in large) == (written in small)


async def test_what_no_rule_changes_is_the_very_same_body() -> None:
    body = b' { "t" : 5 , "t":6,"seed": 01x }'
    large = asked(stored := OnDisk(body, 4))
    await put_under(FILL, large, searched(body), Work.GENERATE)
    assert large.body is stored
    valid = bytearray(b' { "t" : 5 , "t":6}')
    small = asked(valid)
    await put_under(FILL, small, None, Work.GENERATE)
    assert small.body is valid


async def test_of_a_large_body_only_what_rules_name_is_read() -> None:
    body = b'{"x": "' + b"y" * (3 << 20) + b'", "t": 5}'
    stored = OnDisk(body, 64)
    large = asked(stored)
    await put_under(SET, large, searched(body), Work.GENERATE)
    assert stored.read_from == {len(body) - len(" 5}")}


async def test_a_value_too_long_to_be_edited_is_refused() -> None:
    body = b'{"kw": "' + b"y" * (2 << 20) + b'"}'
    large = asked(OnDisk(body, 1 << 18))
    with pytest.raises(ClientError, match="`kw` is over 1 MiB"):
        await put_under(SET, large, searched(body), Work.GENERATE)


FORM = b"multipart/form-data; boundary=edge"


@pytest.mark.parametrize(
    ("body", "content_type"), [(b"--edge--", FORM), (b"[1]", b"application/json")]
)
async def test_what_has_no_params_is_refused_only_where_it_would_evade_a_rule(
    body: bytes, content_type: bytes
) -> None:
    for known in (None, Wishes()):
        for said, work, refused in (
            (FILL, Work.GENERATE, False),
            (SET, Work.ASK, False),
            (SET, Work.GENERATE, True),
        ):
            it = asked(body, content_type)
            if refused:
                with pytest.raises(ClientError, match="set_params or strip_params"):
                    await put_under(said, it, known, work)
            else:
                await put_under(said, it, known, work)
            assert it.body is body


async def test_no_body_is_no_body() -> None:
    empty = asked(b"")
    await put_under(SET, empty, None, Work.ASK)
    assert empty.body == b""


keys = st.sampled_from(["t", "seed", "kw", "x", "ä", "s\\"])
scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
blanks = st.sampled_from([b"", b" ", b"\n\t"])


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    members = draw(st.lists(st.tuples(keys, values), max_size=6))
    texts = []
    for name, value in members:
        key = "".join(
            f"\\u{ord(c):04x}" if draw(st.booleans()) else json.dumps(c)[1:-1] for c in name
        )
        text = json.dumps(value, ensure_ascii=draw(st.booleans())).encode()
        gap = [draw(blanks) for _ in range(4)]
        texts.append(gap[0] + f'"{key}"'.encode() + gap[1] + b":" + gap[2] + text + gap[3])
    return draw(blanks) + b"{" + b",".join(texts) + b"}" + draw(blanks)


@given(documents(), st.integers(1, 20), st.lists(st.integers(0, 100), max_size=5))
async def test_however_a_body_is_written_and_comes_the_rules_hold(
    body: bytes, piece: int, cuts: list[int]
) -> None:
    expected = json.loads(body)
    expected.pop("seed", None)
    inner = expected.get("kw")
    expected |= {"t": 1, "kw": {**(inner if isinstance(inner, dict) else {}), "think": True}}
    assert json.loads(await put(SET, body)) == expected
    assert json.loads(await put_large(SET, body, piece, cuts)) == expected


# --- through the whole ---


def echoed(told: Any) -> Any:
    return json.loads(told.json()["body"])
    return json.loads(told.json()["body"].encode("latin-1"))


async def test_a_model_without_a_filter_gets_every_body_byte_for_byte(faking: Faking) -> None:
    body = b'{ "t" :1e400,"t":2 , "x":12345678901234567890 }'
    async with running(faking("--fake-echo")) as llamasup:
        assert (await llamasup.ask("POST", "/tokenize", body)).json()["body"] == body.decode()


async def test_bodies_are_filtered_however_they_come(faking: Faking) -> None:
    filtered = faking("--fake-echo", set_params={"seed": 1}, strip_params=["tools"])
    small = {"messages": [], "seed": 2, "tools": [1]}
    large = {"tools": "z" * 90_000, **small, "x": "ä" * 900_000}
    async with running(filtered) as llamasup:
        for body in (small, {**small, "x": "y" * 100_000}, large):
            reply = await llamasup.ask("POST", "/v1/chat/completions", body)
            kept = {name: value for name, value in body.items() if name != "tools"}
            assert echoed(reply) == {**kept, "seed": 1}
            assert dict(reply.json()["headers"])["Content-Length"] == str(len(reply.json()["body"]))
            assert echoed(await in_chunks(llamasup, body)) == {**kept, "seed": 1}
        own_path = await llamasup.ask("POST", "/upstream/fake/v1/chat/completions", small)
        assert echoed(own_path) == {"messages": [], "seed": 1}


async def in_chunks(llamasup: Llamasup, body: object) -> Any:
    content = json.dumps(body).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with llamasup.connect() as client:
        await client.send(head)
        for at in range(0, len(content), 50_000):
            part = content[at : at + 50_000]
            await client.send(b"%x\r\n%b\r\n" % (len(part), part))
        await client.send(b"0\r\n\r\n")
        return await client.reply()


async def test_a_form_does_not_evade_what_the_operator_said(faking: Faking) -> None:
    form = b'--e\r\nContent-Disposition: form-data; name="temperature"\r\n\r\n2\r\n--e--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=e"}
    path = "/v1/audio/transcriptions"
    async with running(faking("--fake-echo", set_params={"temperature": 0})) as llamasup:
        reply = await llamasup.ask("POST", path, form, headers)
        assert (reply.status, reply.error["code"]) == (400, "invalid_parameter")
        assert "set_params" in reply.error["message"]
    async with running(faking("--fake-echo", default_params={"temperature": 0})) as llamasup:
        reply = await llamasup.ask("POST", path, form, headers)
        assert reply.json()["body"].encode() == form


async def test_a_variant_is_the_same_child_with_other_params(faking: Faking) -> None:
    thinking = {
        "aliases": ["o3"],
        "set_params": {"chat_template_kwargs": {"enable_thinking": True}},
    }
    varied = faking("--fake-echo", variants={"thinking": thinking}, default_params={"seed": 1})
    async with running(varied) as llamasup:
        for name, think in (("fake", None), ("fake:thinking", True), ("O3", True)):
            reply = await llamasup.ask("POST", "/v1/chat/completions", {"model": name, "seed": 2})
            sent = echoed(reply)
            assert sent.get("chat_template_kwargs") == (think and {"enable_thinking": think})
            assert (sent["model"], sent["seed"]) == (name, 2)
        query = await llamasup.ask("POST", "/tokenize?model=fake:thinking", {})
        assert echoed(query)["seed"] == 1
        assert len((await llamasup.status())["models"]) == 1
        assert (await llamasup.model_status("fake"))["loads"] == 1
        listed = (await llamasup.ask("GET", "/v1/models")).json()["data"]
        assert [(one["id"], one["aliases"]) for one in listed] == [
            ("fake", []),
            ("fake:thinking", ["o3"]),
        ]
        one = (await llamasup.ask("GET", "/v1/models/o3")).json()
        assert (one["id"], one["status"]["value"]) == ("fake:thinking", "loaded")


async def test_a_body_that_is_sent_again_is_filtered_as_before(
    faking: Faking, journal: Journal
) -> None:
    dying = faking("--fake-echo", "--fake-die-at-byte", "-1", set_params={"seed": 1})
    async with running(dying) as llamasup:
        await llamasup.ask("POST", "/v1/completions", {"x": "y" * (2 << 20), "seed": 2})
        bodies = [entry["body"] for entry in journal.entries("request") if entry["body"]]
        assert len(bodies) == 2
        assert bodies[0] == bodies[1]
        assert json.loads(bodies[0])["seed"] == 1


async def test_a_new_filter_counts_for_the_next_request(faking: Faking) -> None:
    key = {"Authorization": "Bearer k"}
    async with running({**faking("--fake-echo"), "server.admin_key": "k"}) as llamasup:
        assert echoed(await llamasup.ask("POST", "/tokenize", {"seed": 2})) == {"seed": 2}
        config = (await llamasup.ask("GET", "/config", headers=key)).json()
        config["models"]["fake"]["set_params"] = {"seed": 1}
        config["models"]["fake"]["variants"] = {"new": {}}
        assert (await llamasup.ask("POST", "/config", config, key)).status == 200
        assert echoed(await llamasup.ask("POST", "/tokenize", {"seed": 2})) == {"seed": 1}
        named = await llamasup.ask("POST", "/tokenize", {"model": "fake:new"})
        assert echoed(named)["seed"] == 1
        assert (await llamasup.model_status("fake"))["loads"] == 1


async def test_pipelined_requests_to_variants_do_not_mix(faking: Faking) -> None:
    variants = {name: {"set_params": {"seed": int(name)}} for name in "123"}
    varied = faking("--fake-echo", variants=variants)
    async with running(varied) as llamasup, llamasup.connect() as client:
        for name in "123":
            body = chat(1, model=f"fake:{name}")
            await client.send(request("POST", "/v1/chat/completions", body))
        for name in "123":
            assert echoed(await client.reply())["seed"] == int(name)


DEEP = b"[" * 5000 + b"]" * 5000


@pytest.mark.parametrize("body", [b'{"x":%b}', b'{"kw":{"x":%b}}', b'{"kw":%b}'])
async def test_what_is_nested_too_deeply_is_the_clients_mistake(body: bytes) -> None:
    """Whoever read it before need not have looked so deep: a path below /upstream/ is not read."""
    with pytest.raises(ClientError, match="nested too deeply"):
        await put_under(SET, asked(body % DEEP), None, Work.GENERATE)
    if b'"kw":{' in body:
        members = [Member("kw", 1, 6, len(body % DEEP) - 1)]
        with pytest.raises(ClientError, match="nested too deeply"):
            await put_under(SET, asked(body % DEEP), Wishes(members=members), Work.GENERATE)


async def test_a_large_body_that_a_translation_made_does_not_hold_the_loop() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    body = b'{"x":"%b","t":5,"seed":1}' % (b"y" * (4 << 20))
    made = asked(body)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await put_under(SET, made, None, Work.GENERATE)
        nursery.cancel_scope.cancel()
    assert turns > 400
    assert isinstance(made.body, Edited)  # of the old parts, which are not copied
    sent = json.loads(await whole(made.body))
    assert (sent["t"], sent["x"][0], "seed" in sent) == (1, "y", False)
