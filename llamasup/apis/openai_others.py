"""The other paths in the manner of OpenAI's: embeddings, reranking, speech and pictures. Pure.

The list of models is not among them: llamasup itself answers it, and no engine.
"""

from __future__ import annotations

from llamasup.apis.dialect import Layout
from llamasup.apis.openai import OpenAI


class OpenAIOthers(OpenAI):
    """One answer, and never a stream."""

    about = "Embeddings, reranking, speech and pictures, as OpenAI does them"
    whole = Layout(prompt_tokens=(("usage", "prompt_tokens"),), answer_tokens=None)

    work_paths = (
        *(b"/embeddings", b"/v1/embeddings"),
        *(b"/rerank", b"/v1/rerank", b"/reranking", b"/v1/reranking"),
        *(b"/audio/transcriptions", b"/v1/audio/transcriptions"),
        *(b"/v1/audio/translations", b"/v1/audio/speech"),
        *(b"/v1/images/generations", b"/v1/images/edits", b"/v1/images/variations"),
    )
