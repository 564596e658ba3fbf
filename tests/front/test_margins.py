"""Of an answer, the beginning and the end are kept, and nothing of a short one is missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llamasup.front.margins import Margins

pieces = st.lists(
    st.integers(0, 6000).map(lambda size: bytes(index % 251 for index in range(size)))
)


@given(pieces)
def test_the_ends_are_kept_and_what_is_kept_is_bounded(pieces: list[bytes]) -> None:
    margins, whole = Margins(), b"".join(pieces)
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
