"""The admin key: which requests have it, and how often a client may guess it. Pure: now is an
argument."""

from __future__ import annotations

import hmac
from collections import OrderedDict, deque
from typing import Final

from llamasup.access.headers import API_KEY, AUTHORIZATION, Headers, header
from llamasup.access.keyring import presented
from llamasup.errors import TooManyTries, Unauthorized

MOST_TRIES: Final = 5
WITHIN: Final = 60.0
_MOST_CLIENTS: Final = 1024


def is_operator(headers: Headers, admin_key: str) -> bool:
    """Is there an operator's key, and does this request have it?"""
    given = presented(header(headers, AUTHORIZATION), header(headers, API_KEY))
    right = admin_key.encode()
    return bool(admin_key) and any(hmac.compare_digest(key, right) for _, key in given)


def has_any(headers: Headers) -> bool:
    """Does the request have a key at all, right or wrong?"""
    return bool(header(headers, AUTHORIZATION) or header(headers, API_KEY))


class Tries:
    """The wrong keys that each client has tried: after some of them a client has to wait.

    While it has to wait, even the right key is refused: otherwise guessing could go on.
    """

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def demand_key(self, headers: Headers, admin_key: str, client: str, now: float) -> None:
        """Raise Unauthorized if there is a key that the request lacks, and TooManyTries if its
        client has guessed too often."""
        if not admin_key:
            return
        wrong = self._wrong.get(client, deque())
        while wrong and wrong[0] <= now - WITHIN:
            wrong.popleft()
        if len(wrong) >= MOST_TRIES:
            error = TooManyTries("too many wrong keys were tried from there; wait, and try again")
            error.retry_after = wrong[0] + WITHIN - now
            raise error
        if is_operator(headers, admin_key):
            self._wrong.pop(client, None)
            return
        if has_any(headers):
            self._note(client, now)
        raise Unauthorized('this takes the admin key: "Authorization: Bearer KEY"')

    def _note(self, client: str, now: float) -> None:
        self._wrong.setdefault(client, deque()).append(now)
        self._wrong.move_to_end(client)
        if len(self._wrong) > _MOST_CLIENTS:
            self._wrong.popitem(last=False)
