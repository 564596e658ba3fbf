"""An answer in another API: whole lines, in any framing, and never an end that is none."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.apis.ollama_chat import OllamaChat
from llamasup.apis.translation import Moment, Reply, Translation
from llamasup.errors import EngineFailed
from llamasup.front.answer import Answer, Seen
from llamasup.front.rendering import Rendering
from llamasup.front.translated_answer import TranslatedStream, TranslatedWhole
from llamasup.http.framing import LAST_CHUNK, Chunked, chunk
from llamasup.http.reply_heads import ReplyHead
from llamasup.http.requests import Request
from tests.front.test_rendering import Engine

WORDS = [b'data: {"choices":[{"delta":{"content":" %d"}}]}\n\n' % number for number in range(4)]
END = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"no"}}\n\n'
TYPE = b"Content-Type: text/event-stream"


def reply() -> Reply:
    asked = {"messages": [{"role": "user", "content": "x"}]}
    meant = OllamaChat().translated(b"/api/chat", json.dumps(asked).encode())
    assert isinstance(meant, Translation)
    return meant.reply(Moment("count", "now"))


def asked(*, http_1_0: bool = False) -> Request:
    return Request(b"POST", b"/api/chat", [], not http_1_0, http_1_0, b"the-id", b"{}")


def stream(answer: Answer, to: Request, *, chunked: bool = True) -> TranslatedStream:
    head = ReplyHead(200, [b"Server: engine", TYPE], None, chunked, is_event_stream=True)
    return TranslatedStream(head, to, answer, Engine(), reply())


def rendered(rendering: Rendering, parts: list[bytes]) -> bytes:
    """What the client gets of an answer that comes in these parts, and then ends."""
    first, *others = parts
    sent = rendering.begun(rendering.content(first)) + b"".join(map(rendering.passed, others))
    return sent if rendering.body.done else sent + rendering.ending()


def lines(sent: bytes) -> list[str]:
    """What the lines say; "end" for the last one, and errors."""
    head, _, body = sent.partition(b"\r\n\r\n")
    assert b"Content-Type: application/x-ndjson" in head
    assert b"event-stream" not in head
    if b"chunked" in head:
        framing = Chunked(bytearray())
        assert framing.feed(body) == len(body)
        assert framing.done
        assert framing.payload is not None
        body = bytes(framing.payload)
    documents = [json.loads(line) for line in body.splitlines()]
    return [
        "end" if line.get("done") else line.get("error") or line["message"]["content"]
        for line in documents
    ]


@given(st.booleans(), st.booleans(), st.lists(st.integers(0, 300)))
def test_the_lines_are_the_same_in_any_framing_and_however_the_stream_was_cut(
    chunked: bool, http_1_0: bool, cuts: list[int]
) -> None:
    to = asked(http_1_0=http_1_0)
    content = b"".join([*WORDS, END])
    whole = chunk(content) + LAST_CHUNK if chunked else content
    at = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    parts = [whole[a:b] for a, b in pairwise(at)]
    sent = rendered(stream(Answer(to, []), to, chunked=chunked), parts)
    assert lines(sent) == [" 0", " 1", " 2", " 3", "end"]


def test_a_line_is_passed_on_with_its_event() -> None:
    to = asked()
    rendering = stream(Answer(to, []), to)
    rendering.begun(rendering.content(chunk(WORDS[0])))
    assert b'" 1"' in rendering.passed(chunk(WORDS[1]))


def test_of_a_long_event_that_has_come_in_part_the_client_has_nothing() -> None:
    answer = Answer(asked(), [])
    rendering = stream(answer, asked())
    rendering.begun(rendering.content(chunk(WORDS[0])))
    assert (
        rendering.passed(chunk(b'data: {"choices":[{"delta":{"content":"' + b"x" * 99_999)) == b""
    )
    rendering.note_seen()
    assert answer.seen is Seen.EVENTS
    assert b"xxx" in rendering.passed(chunk(b'"}}]}\n\n'))


def test_what_passes_the_time_becomes_a_blank_before_the_first_line() -> None:
    answer = Answer(asked(), [])
    rendering = stream(answer, asked())
    sent = rendering.before_answer(b":\n\n")
    assert answer.seen is Seen.EVENTS
    sent += rendering.begun(rendering.content(chunk(WORDS[0] + END)))
    sent += rendering.passed(LAST_CHUNK)
    assert lines(sent) == [" 0", "end"]
    assert sent.count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize("content", [b"", WORDS[0], b"".join(WORDS)])
def test_a_stream_without_its_last_event_has_no_clean_end(content: bytes) -> None:
    to = asked()
    with pytest.raises(EngineFailed, match="last event"):
        rendered(stream(Answer(to, []), to), [chunk(content), LAST_CHUNK])
    with pytest.raises(EngineFailed, match="last event"):
        rendered(stream(Answer(to, []), to, chunked=False), [content])


def test_an_error_after_words_is_a_line() -> None:
    to = asked()
    sent = rendered(stream(Answer(to, []), to), [chunk(WORDS[0]), chunk(ERROR) + LAST_CHUNK])
    assert lines(sent) == [" 0", "no"]


def test_an_error_before_all_words_is_none_of_the_lines() -> None:
    to = asked()
    with pytest.raises(EngineFailed, match="no"):
        rendered(stream(Answer(to, []), to), [chunk(ERROR) + LAST_CHUNK])


def test_a_whole_answer_has_its_new_length() -> None:
    to = asked()
    head = ReplyHead(200, [b"Content-Type: application/json"], 1, False)
    rendering = TranslatedWhole(head, to, Answer(to, []), reply())
    told = rendering.told(b'{"choices":[{"message":{"content":"4"}}]}')
    sent = rendering.answered(told)
    assert b"\r\nContent-Length: %d\r\n" % len(told) in sent
    assert json.loads(sent.partition(b"\r\n\r\n")[2])["message"]["content"] == "4"
