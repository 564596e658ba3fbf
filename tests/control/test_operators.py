"""Who may act as an operator."""

from __future__ import annotations

import pytest

from llamasup.access.admin_key import MOST_TRIES
from llamasup.access.keyring import EVERYTHING, NOTHING
from llamasup.config.schema import Config, KeySettings, Server
from llamasup.control.asgi import Question
from llamasup.control.operators import Operators, key_of
from llamasup.errors import TooManyTries, Unauthorized

ALICE = KeySettings(models=("qwen3",))
OPS = KeySettings(operator=True)
KEYS = {"alice": ALICE, "ops": OPS}


def question(key_name: str = "", admin_key: str = "") -> Question:
    headers = [(b"x-llamasup-client", b"10.0.0.7")]
    if key_name:
        headers.append((b"x-llamasup-key", key_name.encode()))
    if admin_key:
        headers.append((b"authorization", f"Bearer {admin_key}".encode()))
    return Question("POST", "/", b"/", "", headers, b"")


def test_whose_key_came_decides_what_may_be_used() -> None:
    config = Config(keys=KEYS)
    assert key_of(question("alice"), config) is ALICE
    assert key_of(question("gone"), config) is NOTHING
    assert key_of(question(), Config()) is EVERYTHING


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        (Config(), question()),
        (Config(keys=KEYS), question("ops")),
        (Config(server=Server(admin_key="secret")), question(admin_key="secret")),
        (Config(keys=KEYS, server=Server(admin_key="secret")), question("alice", "secret")),
    ],
)
async def test_an_operator_is_let_in(config: Config, asked: Question) -> None:
    Operators().demand(asked, config)


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        (Config(keys=KEYS), question("alice")),
        (Config(keys=KEYS), question(admin_key="secret")),
        (Config(server=Server(admin_key="secret")), question()),
        (Config(server=Server(admin_key="secret")), question(admin_key="guess")),
    ],
)
async def test_nobody_else_is(config: Config, asked: Question) -> None:
    with pytest.raises(Unauthorized):
        Operators().demand(asked, config)


async def test_who_guesses_too_often_has_to_wait_and_is_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config, operators = Config(server=Server(admin_key="secret")), Operators()
    for guess in range(MOST_TRIES):
        with pytest.raises(Unauthorized):
            operators.demand(question(admin_key=f"guess {guess}"), config)
    with pytest.raises(TooManyTries):
        operators.demand(question(admin_key="secret"), config)
    assert "a wrong operator's key came from 10.0.0.7" in caplog.text
