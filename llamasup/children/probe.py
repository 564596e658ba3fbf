"""One small question to a child, such as `GET /health`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import trio

from llamasup.config.addresses import Address
from llamasup.http import question
from llamasup.http.wire import dial
from llamasup.shortages import is_shortage

_PATIENCE = 2.0

NoAnswer = question.NoAnswer


class NotAsked(Exception):
    """We had no descriptor or thread to ask with: that says nothing about the child."""


async def ask(address: Address, target: str) -> tuple[int, bytes]:
    """GET `target`: the status and the body. Raises NoAnswer and NotAsked.

    The caller bounds the time.
    """
    try:
        with await dial(address) as wire:
            return await question.ask(wire, target)
    except OSError as error:
        raise (NotAsked if is_shortage(error) else NoAnswer)(str(error)) from error


async def reach(address: Address) -> None:
    """Connect, and ask nothing. Raises NoAnswer and NotAsked."""
    try:
        with await dial(address):
            pass
    except OSError as error:
        raise (NotAsked if is_shortage(error) else NoAnswer)(str(error)) from error


async def is_well(address: Address, look: Callable[[Address], Awaitable[bool]]) -> bool | None:
    """Does the child answer soon, and well?

    None if a shortage of ours kept us from asking: the child may be well.
    """
    try:
        with trio.move_on_after(_PATIENCE), suppress(NoAnswer):
            return await look(address)
        return False
    except NotAsked:
        return None
