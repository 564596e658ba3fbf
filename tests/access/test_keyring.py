"""A request is its key's, however the key is sent; and nothing that is no key is taken for one."""

from __future__ import annotations

import pickle
import tracemalloc
from base64 import b64encode
from collections.abc import Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamasup.access.keyring import Keyring, demand_use, may_use
from llamasup.config.schema import KeySettings, Moment
from llamasup.config.secrets import hash_of
from llamasup.errors import InvalidKey, ModelForbidden

ALICE, BOB = b"sk-the-key-of-alice", b"sk-the-key-of-bob"
SOON = 1_800_000_000.0


def of(secret: bytes, expires: float = 0) -> KeySettings:
    return KeySettings(key_hash=hash_of(secret), expires=Moment(expires))


def ring(**keys: KeySettings) -> Keyring:
    return Keyring(keys or {"alice": of(ALICE), "bob": of(BOB)})


def basic(credentials: bytes) -> bytes:
    return b"Basic " + b64encode(credentials)


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (b"Bearer " + ALICE, None),
        (b"bearer   " + ALICE + b" ", None),
        (None, ALICE),
        (basic(b"whoever:" + ALICE), None),
        (basic(b":" + ALICE), None),
        (basic(ALICE + b":"), None),
        (basic(ALICE), None),
        (b"Bearer dummy", ALICE),
        (b"Bearer " + ALICE, b"dummy"),
        (b"Bearer " + ALICE, BOB),
    ],
)
def test_a_key_counts_however_it_is_sent(authorization: bytes | None, api_key: bytes) -> None:
    assert ring().caller(authorization, api_key, 0).key.name == "alice"


def test_every_header_that_holds_a_key_of_ours_is_known() -> None:
    both = ring().caller(b"Bearer " + ALICE, BOB, 0)
    assert both.headers == {b"authorization", b"x-api-key"}
    assert ring().caller(b"Bearer of-the-engine", BOB, 0).headers == {b"x-api-key"}


@pytest.mark.parametrize(
    ("authorization", "api_key"),
    [
        (None, None),
        (b"", b""),
        (b"Bearer", None),
        (b"Bearer " + ALICE + b"x", None),
        (b"Bearer " + ALICE[:-1], None),
        (ALICE, None),
        (b"Digest " + ALICE, None),
        (b"Basic " + ALICE, None),
        (b"Basic ====", None),
        (b"Basic \xff\xfe", None),
        (basic(b"\xff:\x00"), None),
        (basic(b""), None),
        (None, b"Bearer " + ALICE),
    ],
)
def test_nothing_else_is_a_key(authorization: bytes | None, api_key: bytes | None) -> None:
    with pytest.raises(InvalidKey):
        ring().caller(authorization, api_key, 0)


@given(st.none() | st.binary(max_size=100), st.none() | st.binary(max_size=100))
@example(b"Basic " + b"A" * 5, None)
@example(b"Bearer " + b"x" * 70_000, b"y" * 70_000)
def test_whatever_is_sent_is_refused_politely(
    authorization: bytes | None, api_key: bytes | None
) -> None:
    with pytest.raises(InvalidKey) as refused:
        ring().caller(authorization, api_key, 0)
    assert "x-api-key: KEY" in str(refused.value)


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(InvalidKey) as refused:
        ring().caller(b"Bearer sk-almost-right", None, 0)
    assert "almost" not in str(refused.value)


def test_nothing_is_kept_from_which_a_key_could_be_read() -> None:
    """So no comparison can take longer the more of a key is right."""
    kept = pickle.dumps(vars(ring()))
    assert ALICE not in kept
    assert BOB not in kept


def test_a_million_unknown_keys_are_not_remembered() -> None:
    keys = ring()
    tracemalloc.start()
    try:
        for number in range(20_000):
            with pytest.raises(InvalidKey):
                keys.caller(b"Bearer unknown-%d" % number, None, 0)
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


# --- until when ---


def test_a_key_is_valid_until_it_expires() -> None:
    keys = ring(alice=of(ALICE, expires=SOON))
    alice = keys.caller(None, ALICE, SOON - 1).key
    assert keys.still(alice, SOON - 1) == alice
    for late in (SOON, SOON + 1e9):
        with pytest.raises(InvalidKey, match='"alice" has expired'):
            keys.caller(None, ALICE, late)
        with pytest.raises(InvalidKey, match='"alice" has expired'):
            keys.still(alice, late)


@pytest.mark.parametrize("later", [{"bob": of(BOB)}, {"alice": of(BOB)}, {"bob": of(ALICE)}])
def test_a_key_that_was_taken_away_or_replaced_is_not_valid_any_more(
    later: Mapping[str, KeySettings],
) -> None:
    alice = ring().caller(None, ALICE, 0).key
    with pytest.raises(InvalidKey, match="taken away"):
        Keyring(later).still(alice, 0)


def test_what_a_key_may_do_is_what_it_may_do_now() -> None:
    alice = ring().caller(None, ALICE, 0).key
    narrower = KeySettings(key_hash=hash_of(ALICE), models=("a",))
    assert Keyring({"alice": narrower}).still(alice, 0).settings is narrower


def test_without_keys_there_is_no_ring() -> None:
    assert not Keyring({})
    assert ring()


# --- which models ---


@pytest.mark.parametrize(
    ("patterns", "model", "allowed"),
    [
        (("*",), "anything", True),
        ((), "anything", False),
        (("qwen3",), "Qwen3", True),
        (("qwen3",), "qwen3-32b", False),
        (("llama-*", "qwen*"), "qwen3-32b", True),
        (("llama-*",), "my-llama-3", False),
    ],
)
def test_a_key_may_use_the_models_that_match(
    patterns: tuple[str, ...], model: str, allowed: bool
) -> None:
    settings = KeySettings(models=patterns)
    assert may_use(settings, model) is allowed
    if not allowed:
        with pytest.raises(ModelForbidden, match=f'may not use "{model}"'):
            demand_use(settings, model)


def test_a_variant_is_allowed_by_its_own_name_or_by_that_of_its_model() -> None:
    assert may_use(KeySettings(models=("fast",)), "qwen3", "fast")
    assert may_use(KeySettings(models=("qwen3",)), "qwen3", "fast")
