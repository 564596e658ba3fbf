"""The keys of clients: which one a request has, and which models it may use. Pure: now is an
argument.

Only hashes are kept. A presented key is hashed and the hash looked up: so the time that this takes
says nothing about a key, but only about hashes, which nobody can choose. Hashing takes a
microsecond, so nothing is remembered of keys that are unknown.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Final

from attrs import frozen

from llamasup.access.headers import API_KEY, AUTHORIZATION
from llamasup.config.schema import KeySettings
from llamasup.errors import InvalidKey, ModelForbidden, ModelNotFound, ModelNotNamed

_LONGEST: Final = 1024
"""Bytes. What is longer is no key, and is not hashed: a header may have 64 KiB."""

_SCHEME: Final = re.compile(rb"(bearer|basic) +(\S{1,%d}) *" % _LONGEST, re.IGNORECASE)

_HOW: Final = 'send it as "Authorization: Bearer KEY" or as "x-api-key: KEY"'


EVERYTHING: Final = KeySettings()
NOTHING: Final = KeySettings(models=())
"""What may be used where there is no key to tell it."""


@frozen
class Key:
    """A key by its name, which may be logged."""

    name: str
    settings: KeySettings


@frozen
class Caller:
    """Who sent a request: the key that it has, and the headers in which that stands."""

    key: Key
    headers: frozenset[bytes]


def presented(authorization: bytes | None, api_key: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    """The keys in these two headers, each with the name of its header.

    Of Basic, the password counts, or the user's name if there is no password.
    """
    if authorization is not None and (found := _SCHEME.fullmatch(authorization)):
        scheme, credentials = found.groups()
        secret = credentials if scheme.lower() == b"bearer" else _of_basic(credentials)
        yield AUTHORIZATION, secret
    if api_key is not None:
        yield API_KEY, api_key


def _of_basic(credentials: bytes) -> bytes:
    try:
        user, _, password = b64decode(credentials, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return b""
    return password or user


class Keyring:
    """All keys that are valid at present, by their hashes. It is false if there are none: then
    everybody may come in."""

    def __init__(self, keys: Mapping[str, KeySettings]) -> None:
        self._by_name = {name: Key(name, settings) for name, settings in keys.items()}
        self._by_digest = {
            bytes.fromhex(key.settings.key_hash.rpartition(":")[2]): key
            for key in self._by_name.values()
        }

    def __bool__(self) -> bool:
        return bool(self._by_digest)

    def caller(self, authorization: bytes | None, api_key: bytes | None, now: float) -> Caller:
        """Whose request this is, by these two headers; if both have a key, the first one counts.

        `now` is the time of day. Raises InvalidKey.
        """
        found: list[tuple[bytes, Key]] = []
        for header, secret in presented(authorization, api_key):
            key = self._by_digest.get(sha256(secret[:_LONGEST]).digest())
            if key is not None:
                found.append((header, key))
        if not found:
            raise _refusal(authorization, api_key)
        key = found[0][1]
        _refuse_expired(key, now)
        return Caller(key, frozenset(header for header, _ in found))

    def still(self, key: Key, now: float) -> Key:
        """This key as it is now. Raises InvalidKey if it was taken away or has expired."""
        known = self._by_name.get(key.name)
        if known is key and not key.settings.expires:
            return key
        if known is None or known.settings.key_hash != key.settings.key_hash:
            raise InvalidKey(f'the key "{key.name}" was taken away')
        _refuse_expired(known, now)
        return known

    def named(self, name: str) -> Key | None:
        """The key with this name."""
        return self._by_name.get(name)


def _refuse_expired(key: Key, now: float) -> None:
    if 0 < key.settings.expires <= now:
        raise InvalidKey(f'the key "{key.name}" has expired')


def _refusal(authorization: bytes | None, api_key: bytes | None) -> InvalidKey:
    if authorization is None and api_key is None:
        return InvalidKey(f"this takes a key: {_HOW}")
    return InvalidKey(f"this key is not known here; if you have another one, {_HOW}")


def may_use(settings: KeySettings, *names: str) -> bool:
    """May this key use what has these names: the model's own, and that of a variant?"""
    if "*" in settings.models:
        return True
    return any(
        fnmatchcase(name.casefold(), pattern.casefold())
        for pattern in settings.models
        for name in names
    )


def demand_use(settings: KeySettings, *names: str) -> None:
    """Raise ModelForbidden if this key may not use what has these names."""
    if not may_use(settings, *names):
        raise ModelForbidden(f'this key may not use "{names[-1]}"; its operator can allow that')


Unknown = ModelNotFound | ModelNotNamed


def discreet(settings: KeySettings, error: Unknown) -> Unknown:
    """The same error, without the names of models that this key may not use."""
    if "*" in settings.models:
        return error
    listed = "/v1/models lists those that this key may use"
    if isinstance(error, ModelNotFound):
        return ModelNotFound(f"there is no model of this name; {listed}")
    return ModelNotNamed(f'the request names no model; add "model": {listed}')
