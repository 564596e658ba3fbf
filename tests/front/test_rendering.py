"""Whatever framing an answer comes in, its client gets the same content in one it can read."""

from __future__ import annotations

from itertools import pairwise

import pytest
from attrs import Factory, define
from hypothesis import given
from hypothesis import strategies as st

from llamasup.engine.failures import verdict_on_reply
from llamasup.front.answer import Answer, Seen
from llamasup.front.rendering import Rendering, StreamRendering
from llamasup.front.rooms import Hold, Room
from llamasup.front.stream_events import LONGEST_HELD
from llamasup.http.framing import LAST_CHUNK, Chunked, FramingError, chunk
from llamasup.http.reply_heads import ReplyHead
from llamasup.http.requests import Request
from llamasup.http.wire import Wire
from llamasup.upstream import Upstream, Verdict

EVENT = b'data: {"content":"a"}\n\n'
RAN_OUT = b'data: {"error":{"message":"CUDA error: out of memory"}}\n\n'


@define
class Engine(Upstream):
    """Remembers what it was told."""

    steps: int = 0
    ran_out: list[str] = Factory(list)

    def __str__(self) -> str:
        return "the engine"

    async def connect(self) -> Wire:
        raise NotImplementedError

    def progressed(self) -> None:
        self.steps += 1

    def judge(self, status: int, message: str, size: int) -> Verdict:
        return verdict_on_reply(status, message, size)

    def note_out_of_memory(self, words: str) -> bool:
        self.ran_out.append(words)
        return True


def asked(*, http_1_0: bool = False) -> Request:
    return Request(b"POST", b"/", [], not http_1_0, http_1_0, b"the-id", b"{}")


def head(framing: str, content: bytes) -> ReplyHead:
    return ReplyHead(200, [], len(content) if framing == "length" else None, framing == "chunks")


def in_framing(framing: str, content: bytes) -> bytes:
    return chunk(content) + LAST_CHUNK if framing == "chunks" else content


def stream(
    source: Engine, *, http_1_0: bool = False, answer: Answer | None = None
) -> StreamRendering:
    """A stream in chunks, of which nothing has come."""
    to = asked(http_1_0=http_1_0)
    return StreamRendering(head("chunks", b""), to, answer or Answer(to, []), source)


def test_without_room_a_part_of_an_event_is_passed_on_and_nothing_is_held() -> None:
    room = Room(1000, "too much")
    answer = Answer(asked(), [])
    answer.hold = Hold(room, "a")
    begun = stream(Engine(), answer=answer)
    part = b"data: " + b"x" * 300
    assert begun.content(chunk(part)) == b""
    assert room.taken == len(part)
    with Hold(room, "others").counting(600):
        more = begun.content(chunk(b"y" * 300))
    assert more == (part + b"y" * 300)[:-3]
    assert begun.is_within_event
    assert room.taken == 0
    assert begun.content(chunk(b"z\n\n")) == b"yyyz\n\n"
    assert not begun.is_within_event
    assert begun.content(chunk(b"data: 1")) == b""
    assert room.taken == len(b"data: 1")
    assert begun.may_keep(b"data: opening")
    assert room.taken == len(b"data: 1data: opening")
    with Hold(room, "others").counting(900):
        assert not begun.may_keep(b"x" * 100)
    assert room.taken == len(b"data: 1")


def rendered(rendering: Rendering, parts: list[bytes]) -> bytes:
    """What the client gets."""
    first, *others = parts
    sent = rendering.begun(rendering.content(first)) + b"".join(map(rendering.passed, others))
    return sent if rendering.body.done else sent + rendering.ending()


def content_of(reply: bytes) -> bytes:
    lines, _, body = reply.partition(b"\r\n\r\n")
    if b"Transfer-Encoding: chunked" not in lines:
        return body
    payload = bytearray()
    framing = Chunked(payload)
    assert framing.feed(body) == len(body)
    assert framing.done
    return bytes(payload)


FRAMINGS = st.sampled_from(["length", "chunks", "until it closes"])
CONTENTS = st.lists(st.sampled_from([EVENT, b": x\n\n", b"data: 2\r\n\r\n", b"a", b"\n"])).map(
    b"".join
)


@given(FRAMINGS, CONTENTS, st.booleans(), st.booleans(), st.lists(st.integers(0, 100)))
def test_the_content_is_the_same_in_any_framing_and_however_it_was_cut(
    framing: str, content: bytes, http_1_0: bool, is_stream: bool, cuts: list[int]
) -> None:
    to = asked(http_1_0=http_1_0)
    answer = Answer(to, [])
    rendering = (
        StreamRendering(head(framing, content), to, answer, Engine())
        if is_stream
        else Rendering(head(framing, content), to, answer)
    )
    whole = in_framing(framing, content)
    at = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    parts = [whole[a:b] for a, b in pairwise(at)] or [b""]
    assert content_of(rendered(rendering, parts)) == content
    assert rendering.surplus == 0


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_what_follows_the_end_is_counted_and_not_passed_on(framing: str) -> None:
    rendering = Rendering(head(framing, b"0123"), asked(), Answer(asked(), []))
    whole = in_framing(framing, b"0123")
    assert content_of(rendered(rendering, [whole + b"HTTP/1.1"])) == b"0123"
    assert rendering.surplus == 8


def test_a_framing_that_is_broken_is_an_error() -> None:
    rendering = Rendering(head("chunks", b""), asked(), Answer(asked(), []))
    with pytest.raises(FramingError):
        rendering.content(b"no size\r\n")


# --- streams ---


def test_an_event_is_passed_on_when_it_is_whole() -> None:
    rendering = stream(Engine())
    assert rendering.content(chunk(EVENT[:9])) == b""
    assert rendering.passed(chunk(EVENT[9:])) == chunk(EVENT)
    assert rendering.passed(chunk(EVENT)) == chunk(EVENT)


def test_the_client_has_events_or_a_part_of_one_that_is_very_long() -> None:
    answer = Answer(asked(), [])
    rendering = stream(Engine(), answer=answer)
    rendering.begun(rendering.content(chunk(EVENT)))
    rendering.note_seen()
    seen = [answer.seen]
    rendering.passed(chunk(b"data: " + b"x" * LONGEST_HELD))
    assert rendering.is_within_event
    rendering.note_seen()
    assert [*seen, answer.seen] == [Seen.EVENTS, Seen.A_PART]


def test_of_any_other_answer_the_client_has_a_part() -> None:
    answer = Answer(asked(), [])
    Rendering(head("chunks", b""), asked(), answer).note_seen()
    assert answer.seen is Seen.A_PART


@pytest.mark.parametrize("http_1_0", [False, True])
def test_events_that_pass_the_time_open_the_answer_and_no_other_head_follows(
    http_1_0: bool,
) -> None:
    answer = Answer(asked(http_1_0=http_1_0), [])
    rendering = stream(Engine(), http_1_0=http_1_0, answer=answer)
    sent = rendering.before_answer(b":\n\n")
    assert answer.seen is Seen.EVENTS
    sent += rendering.begun(rendering.content(chunk(EVENT))) + rendering.passed(LAST_CHUNK)
    assert sent.count(b"HTTP/1.1 200") == 1
    assert content_of(sent) == b":\n\n" + EVENT


def test_events_are_progress_and_comments_are_none() -> None:
    engine = Engine()
    rendering = stream(engine)
    rendering.content(chunk(b":\n\n"))
    rendering.passed(chunk(b":\n\n"))
    assert engine.steps == 0
    rendering.passed(chunk(EVENT))
    rendering.passed(chunk(EVENT)[:12])
    rendering.passed(chunk(EVENT)[12:])
    assert engine.steps == 2


@pytest.mark.parametrize("cut", [len(chunk(RAN_OUT)), 20])
def test_an_engine_that_ran_out_of_memory_within_its_answer_is_told_so(cut: int) -> None:
    engine = Engine()
    rendering = stream(engine)
    rendering.begun(rendering.content(chunk(EVENT)))
    said = chunk(RAN_OUT)
    assert rendering.passed(said[:cut]) + rendering.passed(said[cut:]) == said
    assert engine.ran_out == ["CUDA error: out of memory"]
