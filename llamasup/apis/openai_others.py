"""The other paths in the manner of OpenAI's: embeddings, reranking and transcriptions. Pure.

The list of models is not among them: llamasup itself answers it, and no engine.
"""

from __future__ import annotations

from llamasup.apis.openai import OpenAI


class OpenAIOthers(OpenAI):
    """One answer, and never a stream."""

    work_paths = (
        *(b"/embeddings", b"/v1/embeddings"),
        *(b"/rerank", b"/v1/rerank", b"/reranking", b"/v1/reranking"),
        *(b"/audio/transcriptions", b"/v1/audio/transcriptions"),
    )
