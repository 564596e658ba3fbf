"""Whose key came with a question to control, and whether its sender may act as an operator."""

from __future__ import annotations

import logging

import trio

from llamasup.access.admin_key import Tries, has_any, is_operator
from llamasup.access.keyring import EVERYTHING, NOTHING
from llamasup.config.schema import Config, KeySettings
from llamasup.control.asgi import Question
from llamasup.errors import ClientError, Unauthorized
from llamasup.http.requests import CLIENT, KEY

log = logging.getLogger(__name__)


def key_of(asked: Question, config: Config) -> KeySettings:
    """What the key of this question may do. The front knows whose it is. The admin key is not one
    of these, and may use everything."""
    if not config.keys or is_operator(asked.headers, config.server.admin_key):
        return EVERYTHING
    return config.keys.get(_name_of_key(asked), NOTHING)


class Operators:
    """Lets operators in, and remembers who tried wrong keys."""

    def __init__(self) -> None:
        self._tries = Tries()

    def demand(self, asked: Question, config: Config) -> None:
        """Raise Unauthorized or TooManyTries if this takes an operator's key or the admin key, and
        neither came. The address that a wrong one came from is logged."""
        key = config.keys.get(_name_of_key(asked))
        if key is not None and key.operator:
            return
        admin_key = config.server.admin_key
        if config.keys and not admin_key:
            raise Unauthorized("this takes a key with operator = true")
        client = asked.header(CLIENT).decode("latin-1")
        try:
            self._tries.demand_key(asked.headers, admin_key, client, trio.current_time())
        except ClientError as error:
            if has_any(asked.headers):
                log.warning("a wrong operator's key came from %s: %s", client, error)
            raise


def _name_of_key(asked: Question) -> str:
    return asked.header(KEY).decode("latin-1")
