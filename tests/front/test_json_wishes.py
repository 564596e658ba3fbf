"""What a body of JSON asks for is found without building the rest of it, at once or as it comes."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamasup.errors import ClientError
from llamasup.front.json_wishes import JsonReader
from llamasup.front.wish_readers import wishes_of
from llamasup.front.wishes import LONGEST_NAME, Wishes
from tests.front.wishing import JSON, MOMENT, STEP, M, fastest, fed, steps

# --- every document ---

keys = st.sampled_from(["model", "stream", "Model", "", "x", "m\\", 'mod"el', "модель"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=9)
    | st.sampled_from(["model", '"', "\\", "}{", "][", ':"', "\\u0022", "\n"])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)
members = st.lists(st.tuples(keys, values), max_size=6)
"""Not a dictionary: a key may come twice."""


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """An object as somebody may write it: blanks, escapes, keys that come again."""
    blank = st.sampled_from(["", " ", "\n\t", "\r\n  "])

    def written(value: object) -> str:
        text = json.dumps(value, ensure_ascii=draw(st.booleans()), indent=draw(indents))
        return draw(blank) + text + draw(blank)

    indents = st.sampled_from([None, 1])
    pairs = (
        draw(blank) + _key(draw, key) + draw(blank) + ":" + written(value)
        for key, value in draw(members)
    )
    mark = draw(st.sampled_from(["", "\ufeff"]))
    document = mark + draw(blank) + "{" + (",".join(pairs) or draw(blank)) + "}" + draw(blank)
    return document.encode()


def _key(draw: st.DrawFn, key: str) -> str:
    if draw(st.booleans()):
        return json.dumps(key)
    return '"' + "".join(f"\\u{ord(letter):04x}" for letter in key) + '"'


def meant(body: bytes) -> Wishes | None:
    """What a whole parser says; None where the model is no name."""
    document = json.loads(body.decode("utf-8-sig"))
    if not isinstance(document, dict):
        return Wishes()
    model = document.get("model")
    if model is not None and not isinstance(model, str):
        return None
    return Wishes(model, document.get("stream") is True)


def agrees(reading: Callable[[], Wishes], body: bytes) -> None:
    try:
        wishes = reading()
    except ClientError:
        assert meant(body) is None
    else:
        assert wishes == meant(body)


@given(objects() | values.map(json.dumps).map(str.encode), st.lists(st.integers(0, 300)))
@example(b'{"a": "\\\\", "model": "x"}', [7, 8, 9])
@example(b'{"a":[{"model":"inner"}],"model":"x","model":"outer"}', [])
def test_of_every_json_document_it_says_what_a_whole_parser_says(
    body: bytes, cuts: list[int]
) -> None:
    if body.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] not in (b"{", b"["):
        for reading in (lambda: wishes_of(body, JSON), lambda: fed(JsonReader(), body, cuts)):
            with pytest.raises(ClientError):
                reading()
        return
    agrees(lambda: wishes_of(body, JSON), body)
    agrees(lambda: fed(JsonReader(), body, cuts), body)
    agrees(lambda: fed(JsonReader(), body, list(range(len(body)))), body)


@given(objects(), st.integers(0, 1000), st.binary(max_size=3), st.lists(st.integers(0, 300)))
def test_what_is_spoiled_is_refused_or_read_as_a_whole_parser_reads_it(
    body: bytes, at: int, spoil: bytes, cuts: list[int]
) -> None:
    spoiled = body[: at % len(body)] + spoil + body[at % len(body) + 1 :]
    try:
        expected = meant(spoiled)
    except ValueError:  # it is no JSON: what it may mean is the engine's affair
        return
    for reading in (lambda: wishes_of(spoiled, JSON), lambda: fed(JsonReader(), spoiled, cuts)):
        with suppress(ClientError):
            assert reading() == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"{",
        b'{"model": "a',
        b'{"model": "a"',
        b'{"model": "a"} trailing',
        b'{"model": "a"}{',
        b'{"model": 7}',
        b'{"model": ["a"]}',
        b'{"model": {"a": 1}}',
        b'{"model": true}',
        b'{"model": }',
        b'{"model"}',
        b'{"model" "a"}',
        b'{"a": "model": "b"}',
        b'{[]: "b"}',
        b'{"a", "b"}',
        b'{"a": 1]',
        b"[1, 2",
        b'"a string"',
        b"7",
        b"null",
        b"\x00",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"messages":' + b"[" * 100_000,
        '{"model": "a"}'.encode("utf-16"),
    ],
)
def test_what_no_engine_could_read_is_refused(body: bytes) -> None:
    for reading in (lambda: wishes_of(body, JSON), lambda: fed(JsonReader(), body, steps(body))):
        with pytest.raises(ClientError, match="body"):
            reading()


@pytest.mark.parametrize("letter", ["a", "é", "\\u0061", "\\u00e9", "\\n"])
def test_a_name_may_be_a_kilobyte_long_and_no_longer(letter: str) -> None:
    size = len(json.loads(f'"{letter}"').encode())
    for letters, fits in ((LONGEST_NAME // size, True), (LONGEST_NAME // size + 1, False)):
        body = f'{{"model": "{letter * letters}"}}'.encode()
        for reading in (lambda b=body: wishes_of(b, JSON), lambda b=body: fed(JsonReader(), b, [])):
            if fits:
                assert reading().model == json.loads(body)["model"]
            else:
                with pytest.raises(ClientError, match="1024 bytes"):
                    reading()


# --- bombs ---

BOMBS = {
    "a list of numbers": b"[" + b"1," * (M // 2) + b"1]",
    "numbers in an object": b'{"x":[' + b"1," * (M // 2) + b"1]}",
    "a stream of objects": b'{"stream":[' + b"{}," * (M // 3) + b"{}]}",
    "objects with keys": b'{"x":[' + b'{"":""},' * (M // 8) + b"{}]}",
    "strings": b'{"x":[' + b'"",' * (M // 3) + b'""]}',
    "escapes": b'{"x":"' + b"\\n" * (M // 2) + b'"}',
    "one string": b'{"x":"' + b"x" * M + b'"}',
    "one number": b'{"x":' + b"1" * M + b"}",
    "blanks": b'{"x":' + b" " * M + b"1}",
    "a name of a megabyte": b'{"model":"' + b"x" * M + b'"}',
    "a model that is a long number": b'{"model":' + b"1" * M + b"}",
    "a model that is a list": b'{"model":[' + b"1," * (M // 2) + b"1]}",
    "a model named again and again": b"{" + b'"model":"a",' * (M // 12) + b'"b":2}',
    "keys": b"{" + b'"a":1,' * (M // 6) + b'"b":2}',
    "escaped keys": b"{" + b'"\\u0061":1,' * (M // 11) + b'"b":2}',
    "mountains": b'{"x":[' + (b"[" * 900 + b"]" * 900) * (M // 1800),
    "keys without values": b"{" + b'"a"' * (M // 3),
    "values without keys": b'{"x":' + b"[]" * (M // 2),
    "nests": b'{"x":[' + b"[[[]]]," * (M // 7) + b"1]}",
    "depth": b'{"x":' + b"[" * (M // 2) + b"]" * (M // 2) + b"}",
    "quotes": b'{"x":' + b'"' * M,
    "backslashes": b'{"x":"' + b"\\" * M,
    "open lists with much in them": b'{"x":' + (b"[" + b"1," * 400) * 900,
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_of_a_megabyte_costs_a_moment_and_hardly_any_memory(bomb: str) -> None:
    body = BOMBS[bomb]
    tracemalloc.start()
    try:
        with suppress(ClientError):
            wishes_of(body, JSON)
        assert tracemalloc.get_traced_memory()[1] < 3 * M
    finally:
        tracemalloc.stop()
    assert fastest(lambda: wishes_of(body, JSON)) < MOMENT


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_step_through_a_large_bomb_takes_longer_than_a_moment(bomb: str) -> None:
    longest, together = fastest_steps(BOMBS[bomb])
    assert longest < MOMENT
    assert together < 1.0


def fastest_steps(body: bytes) -> tuple[float, float]:
    """The longest step, and all of them; of each the fastest of three."""
    best: dict[int, float] = {}
    for _ in range(3):
        reader = JsonReader()
        for at in steps(body):
            started = time.process_time()
            try:
                reader.feed(body[at : at + STEP])
            except ClientError:
                break
            finally:
                best[at] = min(best.get(at, 9.0), time.process_time() - started)
    return max(best.values()), sum(best.values())


def test_what_is_all_brackets_is_refused_before_it_costs_much() -> None:
    body = b'{"x":[' + b"[[[]]]," * (M // 2)
    with pytest.raises(ClientError, match="too many small parts"):
        fed(JsonReader(), body, steps(body))


def test_a_large_body_of_long_strings_and_many_messages_is_none_of_that() -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "word " * 60}]}
    body = json.dumps({"messages": [message] * 50_000, "model": "a", "stream": True}).encode()
    assert fed(JsonReader(), body, steps(body)) == Wishes("a", stream=True)
    picture = "data:image/png;base64," + "iVBORw0KGgo" * 1_000_000
    body = json.dumps({"messages": [{"content": picture}], "model": "b"}).encode()
    assert fed(JsonReader(), body, steps(body)) == Wishes("b")
    numbers = json.dumps({"input": [list(range(9000))] * 400, "model": "c"}).encode()
    assert fed(JsonReader(), numbers, steps(numbers)) == Wishes("c")
