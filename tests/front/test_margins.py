"""Of an answer, the beginning and the end are kept, and nothing of a short one is missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamasup.apis.dialects import dialect_at
from llamasup.apis.llama_cpp import LlamaCpp
from llamasup.events import Usage
from llamasup.front.margins import Margins

CHAT = dialect_at(b"/v1/chat/completions")

pieces = st.lists(
    st.integers(0, 6000).map(lambda size: bytes(index % 251 for index in range(size)))
)


@given(pieces)
def test_the_ends_are_kept_and_what_is_kept_is_bounded(pieces: list[bytes]) -> None:
    margins, whole = Margins(CHAT, CHAT.stream_paths[0]), b"".join(pieces)
    for piece in pieces:
        margins.add(piece)
    kept = margins.content
    if margins.is_whole:
        assert kept == whole
    else:
        assert len(kept) < len(whole)
        assert kept[:4096] == whole[:4096]
        assert whole.endswith(kept[4096:])
        assert len(kept) - 4096 >= 16384
    assert len(kept) <= 4096 + 16384 + 6000


def test_what_an_answer_took_is_read_from_it_or_guessed_from_its_events() -> None:
    for is_stream, begun in ((False, b"{"), (True, b"data: {")):
        margins = Margins(CHAT, CHAT.stream_paths[0])
        margins.add(begun)
        assert margins.usage(is_stream) is None
        assert margins.usage_at_least(400) == Usage(100, is_stream, "")
        margins.add(b'"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n')
        assert margins.usage(is_stream) == Usage(3, 2, "")


def test_what_a_model_wrote_without_saying_how_much_is_guessed_from_its_size() -> None:
    """A client can ask llama-server for an answer without its numbers."""
    engine = LlamaCpp()
    written, embedded = Margins(engine, b"/completion/"), Margins(engine, b"/embedding")
    for margins in (written, embedded):
        margins.add(b'{"content":"%b"}' % (b"x" * 100_000))
        assert margins.usage(is_stream=False) is None
    assert written.usage_at_least(400).computed_tokens in range(25_000, 25_200)
    assert embedded.usage_at_least(400).computed_tokens == 100
