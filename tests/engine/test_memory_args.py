"""An operator's own arguments are heard where they are about memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from llamasup.engine.memory_args import (
    CONTEXT,
    PROJECTOR,
    concern_memory,
    is_unified,
    number_after,
    word_after,
)


@pytest.mark.parametrize(
    ("args", "they_do"),
    [
        ((), False),
        (("--jinja", "--temp", "0.6"), False),
        (("--jinja", "-ctk", "q8_0"), True),
        (("--n-cpu-moe", "20"), True),
        (("--no-mmap",), True),
    ],
)
def test_arguments_that_change_the_need_are_known(args: Sequence[str], they_do: bool) -> None:
    assert concern_memory(args) is they_do


@pytest.mark.parametrize(
    ("args", "context"),
    [
        ((), None),
        (("-c", "4096"), 4096),
        (("--ctx-size", "4096", "-c", "8192"), 8192),
        (("-c", "0"), None),
        (("-c", "many"), None),
        (("-c",), None),
        (("-b", "64"), None),
    ],
)
def test_the_last_number_counts(args: Sequence[str], context: int | None) -> None:
    assert number_after(args, CONTEXT) == context


def test_a_word_is_what_follows_its_option() -> None:
    assert word_after(("--jinja", "--mmproj", "eyes.gguf"), PROJECTOR) == "eyes.gguf"
    assert word_after(("--jinja",), PROJECTOR) is None


@pytest.mark.parametrize(
    ("args", "unified"),
    [
        ((), False),
        (("-kvu",), True),
        (("--kv-unified", "--no-kv-unified"), False),
        (("-no-kvu", "-kvu"), True),
    ],
)
def test_slots_share_their_cache_only_if_told_so(args: Sequence[str], unified: bool) -> None:
    assert is_unified(args) is unified
