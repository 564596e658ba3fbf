"""How much of what each key may use is left: requests and tokens a minute, and requests at once.
Pure: now is an argument, a reading of a clock that never jumps.

What may be used in a minute flows back evenly, so a key that has used up everything can send its
next request after a moment. Tokens are known only when an answer is over, and are taken then: one
request may take more than is left, and the key waits until that has flowed back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from attrs import define, field

from llamasup.access.keyring import Key
from llamasup.config.schema import KeySettings
from llamasup.errors import RateLimited

_MINUTE: Final = 60.0
_SLIP: Final = 1e-6
"""Seconds by which sums of such numbers may be wrong."""

_A_MOMENT: Final = 1.0
"""Seconds after which a key that has too many requests at once may try again."""


@define
class Bucket:
    """What can be used in a minute. At first all of it is left, and what was used flows back."""

    full_at: float = -math.inf
    """When everything will have flowed back. It is the only state, and so the amounts that a new
    configuration allows take effect at once."""

    def left(self, most: int, now: float) -> float:
        """How much of `most` is left; below zero if more was used."""
        return most - self.seconds_to_full(now) * most / _MINUTE

    def take(self, amount: float, most: int, now: float) -> None:
        """Use so much."""
        self.full_at = max(self.full_at, now) + amount * _MINUTE / most

    def seconds_to_full(self, now: float) -> float:
        """In how many seconds everything will have flowed back."""
        return max(0.0, self.full_at - now)

    def seconds_until(self, amount: float, most: int, now: float) -> float:
        """In how many seconds so much will be left."""
        return max(0.0, amount - self.left(most, now)) * _MINUTE / most


@define
class _Account:
    requests: Bucket = field(factory=Bucket)
    tokens: Bucket = field(factory=Bucket)
    at_once: int = 0


class Limits:
    """What each key has used. Keys are known by name, so a new configuration forgets nothing."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}

    def keep(self, keys: Mapping[str, KeySettings]) -> None:
        """Forget all other keys, except those whose requests are still answered."""
        self._accounts = {
            name: account
            for name, account in self._accounts.items()
            if name in keys or account.at_once
        }

    def enter(self, key: Key, now: float) -> None:
        """A request of this key begins; `leave` ends it. Raises RateLimited, and then it has not
        begun and nothing is used."""
        settings = key.settings
        account = self._account(key.name)
        if 0 < settings.at_once <= account.at_once:
            what = f"has {account.at_once} requests at once, which is the most that it may have"
            raise _refusal(key, what, _A_MOMENT)
        if (most := settings.tokens_per_minute) and account.tokens.left(most, now) <= 0:
            wait = account.tokens.seconds_until(1, most, now)
            raise _refusal(key, f"has used up its {most} tokens a minute", wait)
        if most := settings.requests_per_minute:
            if (wait := account.requests.seconds_until(1, most, now)) > _SLIP:
                raise _refusal(key, f"has used up its {most} requests a minute", wait)
            account.requests.take(1, most, now)
        account.at_once += 1

    def leave(self, key: Key) -> None:
        """A request that has begun is over."""
        self._account(key.name).at_once -= 1

    def charge(self, key: Key, tokens: int, now: float) -> None:
        """An answer took so many tokens."""
        if most := key.settings.tokens_per_minute:
            self._account(key.name).tokens.take(tokens, most, now)

    def lines(self, key: Key, now: float) -> list[bytes]:
        """The headers that tell a client what is left to its key, as OpenAI names them."""
        settings = key.settings
        account = self._account(key.name)
        return [
            *_lines(b"requests", account.requests, settings.requests_per_minute, now),
            *_lines(b"tokens", account.tokens, settings.tokens_per_minute, now),
        ]

    def _account(self, name: str) -> _Account:
        if (account := self._accounts.get(name)) is None:
            account = self._accounts[name] = _Account()
        return account


def _refusal(key: Key, what: str, wait: float) -> RateLimited:
    refusal = RateLimited(f'the key "{key.name}" {what}; try again in {_duration(wait)}')
    refusal.retry_after = wait
    return refusal


def _lines(what: bytes, bucket: Bucket, most: int, now: float) -> list[bytes]:
    if not most:
        return []
    to_full = bucket.seconds_to_full(now)
    left = max(0, int(most - (to_full - _SLIP) * most / _MINUTE))
    return [_LINES % (what, most, what, left, what, _duration(to_full).encode())]


_LINES: Final = (
    b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %d\r\nx-ratelimit-reset-%b: %b"
)


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `"350ms"`, `"12s"`, `"6m0s"`, `"1h2m3s"`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    whole = math.ceil(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
