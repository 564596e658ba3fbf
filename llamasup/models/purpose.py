"""What a model is for: to continue a text, to embed it, or to rank how well two texts fit. Pure.

llama-server has to be told: otherwise it aborts for an embedding model, and does not answer for a
ranking one.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

from llamasup.models.gguf import Header


class Purpose(Enum):
    """What a model is for."""

    GENERATE = "generate"
    EMBED = "embed"
    RERANK = "rerank"
    EMBED_ANYHOW = "embed anyhow"
    """The operator wants a model to embed whose file does not say how."""


_POOLING_BY_RANK: Final = 4
_NO_POOLING: Final = (None, 0)
_EMBED_ALWAYS: Final = {"gemma-embedding", "t5encoder"}
_CLASSIFIER: Final = "cls."


def purpose_of(header: Header | None) -> Purpose:
    """The purpose that the header says. If it cannot be read: to generate text, as most models
    do."""
    if header is None:
        return Purpose.GENERATE
    pooling = header.own("pooling_type")
    is_encoder = "bert" in header.architecture or header.architecture in _EMBED_ALWAYS
    judges = any(tensor.name.startswith(_CLASSIFIER) for tensor in header.tensors)
    if pooling == _POOLING_BY_RANK or (is_encoder and judges):
        return Purpose.RERANK
    if is_encoder or pooling not in _NO_POOLING:
        return Purpose.EMBED
    return Purpose.GENERATE


Wanted = Literal["auto", "generate", "embed", "rerank"]


def purpose_as(wanted: Wanted, header: Header | None) -> Purpose:
    """The purpose that the operator `wanted`; "auto" is the one that the header says."""
    said = purpose_of(header)
    if wanted == "auto" or wanted == said.value:
        return said
    if wanted == "embed" and header is not None and header.own("pooling_type") in _NO_POOLING:
        return Purpose.EMBED_ANYHOW
    return Purpose(wanted)
