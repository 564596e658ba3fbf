"""What listings say about a model's file: the little of its header that people ask for. Pure.

Whole headers are large, and listings of thousands of models keep none.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from llamasup.models.facts import Facts, facts_of
from llamasup.models.gguf import Elided, Header
from llamasup.models.purpose import Purpose, purpose_of

_VOCABULARIES: Final = {
    "none": 0,
    "llama": 1,
    "gpt2": 2,
    "bert": 3,
    "t5": 4,
    "rwkv": 5,
    "plamo2": 6,
}
"""llama.cpp's numbers for the kinds of tokenizers."""


@frozen
class Profile:
    """One file of a model, or a projector. What the header does not say is None."""

    size: int = 0
    """Bytes of all parts together."""

    defect: str = ""
    """Why no engine can load it; "" if one may be able to."""

    facts: Facts | None = None
    purpose: Purpose = Purpose.GENERATE
    width: int | None = None
    """How many numbers an embedding has."""

    vocabulary: int | None = None
    vocabulary_type: int | None = None
    sees: bool = False
    """Is it a projector for images?"""

    hears: bool = False
    """Is it a projector for sound?"""

    @property
    def trained_context(self) -> int | None:
        """How much context the model was trained on, if the file says so."""
        return self.facts.trained_context if self.facts else None

    @property
    def parameters(self) -> int | None:
        """How many weights it has."""
        return (self.facts.parameters or None) if self.facts else None


def profile_of(header: Header | None, size: int, defect: str, modified: float = 0.0) -> Profile:
    """The profile of a file with this header (None: it cannot be read), that was changed then."""
    if header is None:
        return Profile(size, defect)
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    tokenizer = header.metadata.get("tokenizer.ggml.model")
    return Profile(
        size,
        defect,
        facts_of(header, modified),
        purpose_of(header),
        _number(header.own("embedding_length")),
        tokens.count if isinstance(tokens, Elided) else _number(header.own("vocab_size")),
        _VOCABULARIES.get(tokenizer) if isinstance(tokenizer, str) else None,
        sees=header.metadata.get("clip.has_vision_encoder") is True,
        hears=header.metadata.get("clip.has_audio_encoder") is True,
    )


def _number(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None
