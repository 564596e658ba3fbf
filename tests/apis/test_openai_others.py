"""Embeddings, reranking and transcriptions are work, and never a stream."""

from __future__ import annotations

from llamasup.apis.openai_others import OpenAIOthers


def test_none_of_them_streams() -> None:
    others = OpenAIOthers()
    assert others.stream_paths == ()
    assert others.speaks_at(b"/v1/embeddings")
    assert others.speaks_at(b"/prefix/reranking")
    assert not others.speaks_at(b"/embedding")
