"""A query names the model, too."""

from __future__ import annotations

import pytest

from llamasup.errors import ClientError
from llamasup.front.wishes import model_in_query
from tests.front.wishing import MOMENT, fastest


@pytest.mark.parametrize(
    ("query", "model"),
    [
        (b"model=a", "a"),
        (b"x=1&model=a%20b+c&y", "a b c"),
        (b"model=mod%C3%A8le", "modèle"),
        (b"supermodel=a", None),
        (b"model=&model=b", "b"),
        (b"", None),
    ],
)
def test_a_query_names_the_model(query: bytes, model: str | None) -> None:
    assert model_in_query(query) == model


def test_a_query_of_many_small_parts_costs_a_moment() -> None:
    assert fastest(lambda: model_in_query(b"a&" * 32_000)) < MOMENT
    with pytest.raises(ClientError, match="1024 bytes"):
        model_in_query(b"model=" + b"a" * 60_000)
