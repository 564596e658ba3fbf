"""A dialect that says no more of itself than it must speaks plainly."""

from __future__ import annotations

import pytest

from llamasup.apis.dialect import Dialect, server_sent_event
from llamasup.errors import ChildLost, LlamasupError
from tests.apis.events import parsed


class Plain(Dialect):
    stream_paths = (b"/talk",)
    work_paths = (b"/v1/count",)
    question_paths = (b"/ask",)
    view_paths = (b"/look",)

    def error_body(self, error: LlamasupError) -> object:
        return str(error)


@pytest.mark.parametrize("path", [b"/talk", b"/v1/count", b"/prefix/ask", b"/a/b/look"])
def test_it_speaks_at_its_paths_whatever_prefix_they_have(path: bytes) -> None:
    assert Plain().speaks_at(path)


@pytest.mark.parametrize("path", [b"", b"/", b"/count", b"/talk/", b"/smalltalk", b"/talk/x"])
def test_it_speaks_nowhere_else(path: bytes) -> None:
    assert not Plain().speaks_at(path)


def test_an_error_is_an_event_like_any_other() -> None:
    assert parsed(Plain().error_event(ChildLost("it broke"))) == (None, "it broke")


def test_the_engines_errors_are_left_as_they_are_and_every_event_is_a_word() -> None:
    assert Plain().corrected(400, b'{"error":{"message":"x"}}') is None
    assert not Plain().passes_the_time({"type": "ping"})
    assert not Plain().only_opens({"choices": []})


def test_an_event_may_have_a_name() -> None:
    assert server_sent_event({"a": "b\n\nc"}) == b'data: {"a": "b\\n\\nc"}\n\n'
    assert server_sent_event(1, b"end") == b"event: end\ndata: 1\n\n"
