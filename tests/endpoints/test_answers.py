"""What instances say about themselves: read strictly, filtered and renamed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.config.schema import EndpointSettings
from llamasup.endpoints import answers
from llamasup.endpoints.answers import Offer
from llamasup.endpoints.balance import Where


def entry(**more: Any) -> EndpointSettings:
    return EndpointSettings(name="box", url="http://box:1", **more)


@pytest.mark.parametrize(
    ("document", "ids"),
    [
        ({"object": "list", "data": [{"id": "a", "object": "model"}]}, ["a"]),
        ({"data": []}, []),
        ({"data": [{"id": "a\n"}, {"id": ""}, {"id": "b"}]}, ["b"]),
        ({"data": [{"name": "a"}]}, None),
        ({"models": []}, None),
        ([], None),
        ("x", None),
    ],
)
def test_models_are_read_from_a_listing(document: object, ids: list[str] | None) -> None:
    assert answers.model_ids(json.dumps(document).encode()) == ids


@pytest.mark.parametrize(
    ("props", "slots"),
    [({"total_slots": 4}, 4), ({"total_slots": 0}, None), ({"total_slots": "4"}, None), ({}, None)],
)
def test_slots_are_read_from_props(props: object, slots: int | None) -> None:
    assert answers.slots_in_props(json.dumps(props).encode()) == slots


@pytest.mark.parametrize(("listed", "slots"), [([{}, {}], 2), ([], None), ({"error": 1}, None)])
def test_slots_are_counted_in_a_list(listed: object, slots: int | None) -> None:
    assert answers.slots_in_list(json.dumps(listed).encode()) == slots


@pytest.mark.parametrize(
    ("ids", "settings", "names"),
    [
        (["a", "b"], {}, {"a": "a", "b": "b"}),
        (["/models/a.gguf"], {}, {"a": "/models/a.gguf"}),
        (["org/a"], {}, {"org/a": "org/a"}),
        (["qwen3-8b", "qwen3-4b", "llama"], {"models": "qwen3-*"}, {"qwen3-8b", "qwen3-4b"}),
        (["a.gguf"], {"models": ("a",)}, {"a": "a.gguf"}),
        (["/m/a.gguf", "b"], {"rename": {"a": "x"}}, {"x": "/m/a.gguf", "b": "b"}),
        (["/m/a.gguf"], {"rename": {"/m/a.gguf": "x"}}, {"x": "/m/a.gguf"}),
    ],
)
def test_models_are_filtered_and_renamed(
    ids: list[str], settings: dict[str, Any], names: dict[str, str] | set[str]
) -> None:
    found = dict(answers.listed(ids, entry(**settings)))
    if isinstance(names, set):
        assert found.keys() == names
    else:
        assert {name: offer.theirs for name, offer in found.items()} == names


def told(ourselves: str = "me", **models: object) -> dict[str, Offer]:
    document = {"instance": "they", "version": 1, "models": models}
    offers = answers.offers(json.dumps(document).encode())
    assert offers is not None
    return dict(answers.told(offers, entry(), ourselves))


def test_a_llamasup_tells_where_its_models_are() -> None:
    found = told(a={"where": "evicts", "slots": 2, "taken": 1, "cost": 5, "origins": ["they"]})
    assert found == {"a": Offer("a", 2, 1, Where.EVICTS, 5, frozenset({"they"}))}


def test_what_it_only_has_from_us_is_left_out() -> None:
    assert told(a={"origins": ["me"]}, b={"origins": ["me", "they"]}).keys() == {"b"}


def test_a_word_of_a_later_version_means_that_it_cannot_be_used() -> None:
    assert told(a={"where": "somewhere"})["a"].where is Where.CANNOT


@given(st.binary(max_size=60))
def test_nothing_that_is_said_raises(body: bytes) -> None:
    for read in (
        *(answers.model_ids, answers.slots_in_props, answers.slots_in_list, answers.offers),
    ):
        read(body)
