"""Streams are cut at the edges of their events, and read up to their first word."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.front.stream_events import LONGEST_HELD, Edges, Overture


def data(document: object, name: str = "") -> bytes:
    event = f"event: {name}\n" if name else ""
    return f"{event}data: {json.dumps(document)}\n\n".encode()


# --- edges ---


def test_whole_events_pass_and_a_part_waits_for_its_rest() -> None:
    edges = Edges()
    assert edges.feed(b"data: 1\n\n") == b"data: 1\n\n"
    assert edges.feed(b"data: 2\n\ndata:") == b"data: 2\n\n"
    assert edges.feed(b" 3\n") == b""
    assert edges.feed(b"\ndata: 4") == b"data: 3\n\n"
    assert edges.rest() == b"data: 4"
    assert edges.rest() == b""


EDGES = st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r"])
STREAMS = st.lists(st.tuples(st.binary(max_size=9), EDGES).map(b"".join)).map(b"".join)


@given(STREAMS, st.lists(st.integers(0, 100)))
def test_nothing_is_lost_or_doubled_and_only_whole_events_pass(
    stream: bytes, cuts: list[int]
) -> None:
    edges = Edges()
    at = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    passed = [edges.feed(stream[a:b]) for a, b in pairwise(at)]
    assert all(part.endswith((b"\n\n", b"\n\r\n", b"\r\r")) for part in passed if part)
    assert not edges.within
    assert b"".join(passed) + edges.rest() == stream


def test_an_event_that_is_too_long_passes_as_it_comes_and_the_next_one_whole() -> None:
    edges = Edges()
    stream = b"data: " + b"x" * 2 * LONGEST_HELD
    passed = b"".join(edges.feed(stream[at : at + 1000]) for at in range(0, len(stream), 1000))
    assert edges.within
    assert stream.startswith(passed)
    assert len(stream) - len(passed) < 4
    passed += edges.feed(b"\n")
    assert edges.within
    passed += edges.feed(b"\ndata: 1")
    assert not edges.within
    assert passed == stream + b"\n\n"
    assert edges.feed(b"\n\n") == b"data: 1\n\n"


# --- the first word ---

COMFORT = [
    b":\n\n",
    b": loading\r\n\r\n",
    b"event: ping\n\n",
    data({"type": "ping"}, "ping"),
    data({"choices": [{"delta": {"role": "assistant"}}], "prompt_progress": {"processed": 1}}),
    data({"content": "", "stop": False, "prompt_progress": {"processed": 1}}),
]
OPENINGS = [
    data({"choices": [{"delta": {"role": "assistant", "content": None}, "finish_reason": None}]}),
    data({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
    data({"choices": [{"text": "", "finish_reason": None}]}),
    data({"choices": []}),
    data({"content": "", "stop": False}),
    data({"type": "message_start", "message": {}}, "message_start"),
    data({"type": "content_block_start", "content_block": {}}, "content_block_start"),
    data({"type": "response.created"}, "response.created"),
]
WORDS = [
    data({"choices": [{"delta": {"content": " 0"}}]}),
    data({"choices": [{"delta": {"reasoning_content": "Hm"}}]}),
    data({"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}),
    data({"choices": [{"delta": {"content": '"prompt_progress":{"x":1}'}}]}),
    data({"choices": [{"delta": {}, "finish_reason": "stop"}]}),
    data({"choices": [{"text": "a"}]}),
    data({"content": "a", "stop": False}),
    data({"content": "", "stop": True}),
    data({"type": "content_block_delta"}, "content_block_delta"),
    data({"type": "response.output_text.delta"}, "response.output_text.delta"),
    data({"error": {"message": "no"}}),
    data({"error": {"message": "no"}, "prompt_progress": None}),
    b'error: {"message": "no"}\n\n',
    b"data: [DONE]\n\n",
    b"data: what is this\n\n",
    b"data: " + b"[" * 10_000 + b"\n\n",
]


@pytest.mark.parametrize("event", COMFORT)
def test_what_passes_the_time_may_be_seen_at_once(event: bytes) -> None:
    overture = Overture()
    assert overture.feed(event) == event
    assert overture.first is None
    assert overture.kept == b""


@pytest.mark.parametrize("event", OPENINGS)
def test_what_only_opens_an_answer_is_kept_for_its_first_word(event: bytes) -> None:
    overture = Overture()
    assert overture.feed(event) == b""
    assert overture.first is None
    assert overture.feed(b":\n\n" + WORDS[0] + b":\n\n") == b":\n\n"
    assert overture.first == WORDS[0]
    assert overture.kept == event + WORDS[0] + b":\n\n"


@pytest.mark.parametrize("event", WORDS)
def test_anything_else_is_a_word(event: bytes) -> None:
    overture = Overture()
    assert overture.feed(event + COMFORT[-1]) == b""
    assert overture.first == event
    assert overture.kept == event + COMFORT[-1]


def test_not_much_is_kept() -> None:
    overture = Overture()
    for _ in range(LONGEST_HELD // len(OPENINGS[0]) + 1):
        assert overture.first is None
        overture.feed(OPENINGS[0])
    assert overture.first is not None
