"""Watches a child that is ready: does it still make progress, and does it keep within its memory?

Signs of progress are tokens, the steps of a prefill in the log, and changes in the slots; if there
is none, it counts whether the child computes (`signs`). `/health` stays green while slots are
wedged, so it counts only for a child that is not in use. A server without slots shows its life only
by its answers, and by what it computes.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Protocol

import trio

from llamasup.children import effort, probe
from llamasup.children.manners import Manners
from llamasup.children.signs import Signs
from llamasup.config.addresses import Address
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Bytes
from llamasup.engine.failures import Cause, Kind
from llamasup.memory.host import anonymous_memory

log = logging.getLogger(__name__)

_LONGEST_PATIENCE = 5.0
_MOST_UNANSWERED = 2
"""A child is ended after so many health checks in a row without an answer."""


class Watched(Protocol):
    """What the watchdog sees of a child, and what it can do about it."""

    users: int
    blocked_by_clients: int
    last_progress: float
    pid: int | None

    @property
    def address(self) -> Address:
        """The address at which the child answers."""

    @property
    def manners(self) -> Manners:
        """How to ask it."""

    def stop(self, cause: Cause | None = None) -> None:
        """Begin to end the child."""

    def retire(self, cause: Cause) -> None:
        """Admit no more requests; end the child when it has answered those that it has."""


async def watch(child: Watched, in_effect: InEffect) -> None:
    """Watch until cancelled, or until the child was told to stop. Retire a child that leaks."""
    unanswered = 0
    while True:
        if child.users:
            if cause := await _until_stalled(child, in_effect):
                log.warning("%s is stopped: %s", child, cause.words)
                child.stop(cause)
                return
            continue
        await in_effect.pause(in_effect.config.recovery.health_interval)
        if child.users:
            continue
        with suppress(probe.NotAsked):
            patience = in_effect.config.recovery.health_interval
            answers = await _answers(child, patience)
            unanswered = 0 if answers else unanswered + 1
        if unanswered >= _MOST_UNANSWERED:
            child.stop(Cause(Kind.HANG, "it does not answer any more"))
            return
        _check_memory(child, in_effect.config.engine.max_child_memory)


async def _until_stalled(child: Watched, in_effect: InEffect) -> Cause | None:
    """Why a child in use has to be ended; None as soon as it is not in use any more."""
    signs = Signs.since(trio.current_time())
    while child.users:
        patience = in_effect.config.recovery.stall_timeout
        try:
            words = await _look(child, signs, patience)
        except probe.NotAsked:
            # We could not ask, for a shortage of ours: that is no silence of the child.
            signs = Signs.since(trio.current_time())
        else:
            if words and child.users:
                return Cause(Kind.HANG, words)
        if child.blocked_by_clients == child.users:
            signs = Signs.since(trio.current_time())
        left = patience - (trio.current_time() - signs.moved)
        await in_effect.pause(max(left, patience / 4) if left > 0 else patience / 2)
    return None


async def _look(child: Watched, signs: Signs, patience: float) -> str | None:
    """Look for signs of life. Why the child has to go; None if it need not. Raises NotAsked."""
    if child.pid is not None:
        signs.computed(trio.current_time(), await effort.spent(child.pid))
    signs.heard(child.last_progress)
    if trio.current_time() - signs.moved < patience or child.blocked_by_clients == child.users:
        return None
    # It may be busy with an answer that it sends only when complete: then its slots have changed.
    slots = await _slots(child, patience)
    signs.heard(child.last_progress)
    signs.told(trio.current_time(), slots)
    return signs.verdict(trio.current_time(), patience)


async def _answers(child: Watched, patience: float) -> bool:
    """Does the child answer at all? Raises NotAsked."""
    with trio.move_on_after(min(patience, _LONGEST_PATIENCE)), suppress(probe.NoAnswer):
        await child.manners.look(child.address)
        return True
    return False


async def _slots(child: Watched, patience: float) -> tuple[int, bytes] | None:
    """What the child answers about its slots, None if nothing. Raises NotAsked."""
    if not child.manners.slots_page:
        return None
    with trio.move_on_after(min(patience, _LONGEST_PATIENCE)), suppress(probe.NoAnswer):
        return await probe.ask(child.address, child.manners.slots_page)
    return None


def _check_memory(child: Watched, most: Bytes) -> None:
    """Retire a child that holds more than `most` while it is not in use. 0 means no limit."""
    if not most or child.users or child.pid is None:
        return
    used = anonymous_memory(child.pid)
    if used > most:
        words = f"it holds {used >> 20} MiB, and may hold {most >> 20}"
        log.warning("%s is retired: %s", child, words)
        child.retire(Cause(Kind.FINISHED, words))
