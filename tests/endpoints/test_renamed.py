"""Another name for the model in a body: everything else stays, byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.endpoints.renamed import name_in, renamed


def test_numbers_spaces_and_order_of_other_members_stay() -> None:
    body = b'{"seed": 1.0, "model":"a","x":[1,  2.50,"\\u00e9"]}'
    assert renamed(body, "b") == b'{"seed":1.0,"model":"b","x":[1,  2.50,"\\u00e9"]}'


@pytest.mark.parametrize("body", [b"", b"[]", b'"model"', b"{", b'{"x":1}', b"\xff"])
def test_a_body_that_names_no_model_is_left_alone(body: bytes) -> None:
    assert renamed(body, "b") is None
    assert name_in(body) is None


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()), st.text())
def test_the_name_is_the_only_change(members: dict[str, object], name: str) -> None:
    body = json.dumps({**members, "model": "a"}).encode()
    other = renamed(body, name)
    assert other is not None
    assert json.loads(other) == {**members, "model": name}
    assert name_in(other) == name
