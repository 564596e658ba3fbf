"""Params are set, filled in and dropped, and all else of a body stays as its client wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from llamasup.config.schema import ModelSettings, Params, VariantSettings
from llamasup.errors import ClientError
from llamasup.models.params import Filter, filter_of

DEEP = {"kw": {"think": True}}


def rules(
    put: dict[str, Any] | None = None,
    fill: dict[str, Any] | None = None,
    drop: tuple[str, ...] = (),
    variant: VariantSettings | None = None,
) -> Filter:
    settings = ModelSettings(
        path=Path("x.gguf"),
        set_params=Params(put or {}),
        default_params=Params(fill or {}),
        strip_params=drop,
    )
    found = filter_of(settings, variant)
    assert found is not None
    return found


def edited(rules: Filter, body: str) -> str:
    return bytes(rules.edited(Raw(body.encode()))).decode()


@pytest.mark.parametrize(
    ("said", "body", "sent"),
    [
        (rules(put={"t": 1}), '{"t": 2, "x": 3}', '{"t":1,"x":3}'),
        (rules(put={"t": 1}), '{"x": 3}', '{"x":3,"t":1}'),
        (rules(put={"t": 1}), "{}", '{"t":1}'),
        (rules(put={"t": [1, "ä", False]}), "{}", '{"t":[1, "ä", false]}'),
        (rules(fill={"t": 1}), '{"x": 3}', '{"x":3,"t":1}'),
        (rules(fill={"t": 1}), '{"t": null}', '{"t":1}'),
        (rules(fill={"t": 1}), '{"t": 0, "x":  3}', '{"t": 0, "x":  3}'),
        (rules(drop=("t",)), '{"t": 1, "x": 3}', '{"x":3}'),
        (rules(drop=("t",)), '{"x":  3 }', '{"x":  3 }'),
        (rules(drop=("t",)), '{"t": 1}', "{}"),
        # tables are merged
        (rules(put=DEEP), "{}", '{"kw":{"think":true}}'),
        (rules(put=DEEP), '{"kw": {"a": 1e400}}', '{"kw":{"a":1e400,"think":true}}'),
        (rules(put=DEEP), '{"kw": {"think": false, "a": 1}}', '{"kw":{"think":true,"a":1}}'),
        (rules(put=DEEP), '{"kw": null}', '{"kw":{"think":true}}'),
        (rules(put=DEEP), '{"kw": "no table"}', '{"kw":{"think":true}}'),
        (rules(fill=DEEP), '{"kw": {"a": 1}}', '{"kw":{"a":1,"think":true}}'),
        (rules(fill=DEEP), '{"kw": {"think":  false}}', '{"kw": {"think":  false}}'),
        (rules(fill=DEEP), '{"kw":  "theirs"}', '{"kw":  "theirs"}'),
        (rules(fill=DEEP), "{}", '{"kw":{"think":true}}'),
        (rules(put=DEEP, fill={"kw": {"b": 2}}), "{}", '{"kw":{"think":true,"b":2}}'),
        (rules(put={"kw": {}}), '{"kw": {"a": 1}}', '{"kw":{}}'),
    ],
)
def test_each_rule_does_what_it_says(said: Filter, body: str, sent: str) -> None:
    assert edited(said, body) == sent


@pytest.mark.parametrize(
    "body",
    [
        '{"t": 2, "t": 3}',
        '{"t": 1, "t": 3}',
        '{"\\u0074": 2}',
        '{"t": 2, "\\u0074": 3}',
        '{"\\u0074": 2, "t": 1}',
    ],
)
def test_no_spelling_evades_a_rule(body: str) -> None:
    assert edited(rules(put={"t": 1}), body) == '{"t":1}'
    assert edited(rules(drop=("t",)), body) == "{}"
    within = f'{{"kw": {body}}}'
    assert edited(rules(put={"kw": {"t": 1}}), within) == '{"kw":{"t":1}}'


def test_of_two_values_engines_take_the_later_one_so_defaults_look_at_that() -> None:
    assert edited(rules(fill={"t": 1}), '{"t": 5, "t": null}') == '{"t":1}'
    assert edited(rules(fill={"t": 1}), '{"t": null, "t": 5}') == '{"t": null, "t": 5}'


@pytest.mark.parametrize(
    "value",
    ["1e400", "-0", "0.10", "12345678901234567890", '"\\u0041\\/"', '{"b" : [1 , 2], "a":0}'],
)
def test_what_no_rule_names_stays_as_it_was_written(value: str) -> None:
    assert edited(rules(put={"t": 1}), f'{{"z":{value},"a":0}}') == f'{{"z":{value},"a":0,"t":1}}'


def test_a_variant_has_the_last_word_on_each_member() -> None:
    variant = VariantSettings(
        set_params=Params({"kw": {"think": False}, "seed": 2}),
        default_params=Params({"t": 0.5}),
        strip_params=("n",),
    )
    both = rules(
        put={"kw": {"think": True, "more": 1}, "t": 1, "n": 3}, drop=("seed",), variant=variant
    )
    sent = json.loads(edited(both, '{"t": 9, "n": 4, "seed": 5}'))
    assert sent == {"t": 9, "seed": 2, "kw": {"think": False, "more": 1}}
    assert json.loads(edited(both, "{}"))["t"] == 0.5


def test_without_rules_there_is_no_filter() -> None:
    assert filter_of(ModelSettings(path=Path("x.gguf"))) is None
    assert filter_of(ModelSettings(path=Path("x.gguf")), VariantSettings()) is None


def test_only_defaults_bow_to_what_a_client_says() -> None:
    assert not rules(fill={"t": 1, "kw": {"a": 1}}).overrules
    assert rules(put={"t": 1}).overrules
    assert rules(put=DEEP).overrules
    assert rules(drop=("t",)).overrules


@pytest.mark.parametrize("body", ["", "[]", "{", '{"a": 01}', '{"\\ud800": 1}', "null"])
def test_what_is_no_object_is_refused(body: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        edited(rules(put={"t": 1}), body)


def test_an_object_within_that_would_hold_the_loop_is_refused() -> None:
    body = '{"kw": {"a": "' + "x" * (256 << 10) + '"}}'
    with pytest.raises(ClientError, match="over 256 KiB"):
        edited(rules(put=DEEP), body)
    assert edited(rules(put={"kw": 1}), body) == '{"kw":1}'


names = st.sampled_from(["a", "b", "kw", "ä"])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(names, values, max_size=4)


def put_over(body: Any, params: dict[str, Any]) -> Any:
    """What `set_params` means, on decoded values."""
    result = dict(body) if isinstance(body, dict) else {}
    for name, value in params.items():
        inner = isinstance(value, dict) and value
        result[name] = put_over(result.get(name), value) if inner else value
    return result


@given(objects, objects)
def test_setting_means_the_same_as_on_decoded_values(
    body: dict[str, Any], params: dict[str, Any]
) -> None:
    if params:
        said = rules(put=params)
        expected = put_over(body, params)
        text = edited(said, json.dumps(body))
        assert json.loads(text) == expected
        assert edited(said, text) == text


@given(objects, objects)
def test_defaults_never_change_what_a_client_said(
    body: dict[str, Any], params: dict[str, Any]
) -> None:
    if params:
        sent = json.loads(edited(rules(fill=params), json.dumps(body)))
        assert sent.keys() == body.keys() | params.keys()
        for name, value in body.items():
            if value is not None and not isinstance(value, dict):
                assert sent[name] == value
