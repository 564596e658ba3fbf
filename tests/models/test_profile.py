"""A profile is the little of a header that listings tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamasup.models.gguf import Elided, Header, Value, header_of
from llamasup.models.profile import Profile, profile_of
from llamasup.models.purpose import Purpose
from tests.models.shapes import VOCABULARY, qwen3


def test_a_models_profile_is_what_its_header_says(tmp_path: Path) -> None:
    path = qwen3().write(tmp_path)
    header = header_of(path)
    profile = profile_of(header, 7, "")
    assert profile.size == 7
    assert (profile.purpose, profile.defect) == (Purpose.GENERATE, "")
    assert profile.trained_context == header.trained_context
    assert profile.vocabulary == VOCABULARY
    assert profile.width == header.own("embedding_length")
    assert profile.parameters == sum(
        tensor.size // tensor.type.size * tensor.type.elements for tensor in header.tensors
    )
    assert (profile.sees, profile.hears) == (False, False)


def test_a_file_without_a_header_has_only_its_size_and_its_defect() -> None:
    assert profile_of(None, 9, "broken") == Profile(9, "broken")


def clip(**metadata: Value) -> Header:
    keys = {f"clip.{key}": value for key, value in metadata.items()}
    return Header("clip", keys, (), 1)


@pytest.mark.parametrize(
    ("header", "sees", "hears"),
    [
        (clip(has_vision_encoder=True), True, False),
        (clip(has_audio_encoder=True), False, True),
        (clip(has_vision_encoder=True, has_audio_encoder=True), True, True),
        (clip(has_vision_encoder=False), False, False),
        (clip(has_vision_encoder="true", has_audio_encoder=1), False, False),
        (clip(), False, False),
    ],
)
def test_a_projectors_profile_tells_what_it_projects(
    header: Header, sees: bool, hears: bool
) -> None:
    profile = profile_of(header, 1, "")
    assert (profile.sees, profile.hears) == (sees, hears)


@pytest.mark.parametrize("odd", [True, 0, -1, "many", 1.5, (1, 2), Elided(3)])
def test_numbers_that_are_none_are_not_told(odd: Value) -> None:
    metadata = {"x.embedding_length": odd, "x.context_length": odd, "x.vocab_size": odd}
    profile = profile_of(Header("x", metadata, (), 1), 1, "")
    assert (profile.width, profile.trained_context, profile.vocabulary) == (None, None, None)
