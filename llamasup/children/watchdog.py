"""Watches a child that is ready: does it still move, and does it keep within its memory?

Progress is what counts: tokens, or the steps of a prefill in the log. `/health` stays green while
slots are wedged, so its word is taken only of a child that nobody uses.
"""

from __future__ import annotations

import logging
from typing import Protocol

import trio
from attrs import frozen

from llamasup.children import probe
from llamasup.config.addresses import Address
from llamasup.config.schema import Bytes, Seconds
from llamasup.engine.failures import Cause, Kind
from llamasup.memory.host import anonymous_memory

log = logging.getLogger(__name__)

_LONGEST_PATIENCE = 5.0
_PAUSE_WITHOUT_MEANS = 1.0
_DEAF = 2
"""So many health checks in a row without an answer are enough."""


@frozen
class Watch:
    """What a child is watched for."""

    stall_timeout: Seconds
    health_interval: Seconds
    max_memory: Bytes | None
    retirement: Seconds


class Watched(Protocol):
    """What of a child is watched, and what can be done about it."""

    users: int
    held_up: int
    last_progress: float
    pid: int | None

    @property
    def address(self) -> Address:
        """Where it answers."""

    def stop(self, cause: Cause | None = None) -> None:
        """Begin to end it."""

    def retire(self, cause: Cause) -> None:
        """Admit nobody any more, then end it."""


async def watch(child: Watched, limits: Watch) -> None:
    """Watch until cancelled, which the child's end does; stop or retire a child that is unwell."""
    deaf = 0
    while True:
        if child.users:
            await _until_stalled(child, limits)
            continue
        await trio.sleep(limits.health_interval)
        if child.users:
            continue
        answer = await _answer(child, "/health", limits.health_interval)
        deaf = deaf + 1 if answer is None else 0
        if deaf >= _DEAF:
            child.stop(Cause(Kind.HANG, "it does not answer any more"))
        _check_memory(child, limits)


async def _until_stalled(child: Watched, limits: Watch) -> None:
    """Return when nobody uses it any more; stop it when it has not moved for too long."""
    before: bytes | None = None
    while child.users:
        silence = trio.current_time() - child.last_progress
        everybody_is_held_up = child.held_up == child.users
        if silence < limits.stall_timeout or everybody_is_held_up:
            before = None
            await trio.sleep(max(limits.stall_timeout - silence, limits.stall_timeout / 4))
            continue
        # It may be busy with an answer that is sent whole: then its slots have moved on.
        now = await _answer(child, "/slots", limits.stall_timeout)
        if now is None or now == before:
            log.warning("%s has not moved for %.0f s and is stopped", child, silence)
            child.stop(Cause(Kind.HANG, f"it did not move for {silence:.0f} s"))
            return
        before = now
        await trio.sleep(limits.stall_timeout / 2)


async def _answer(child: Watched, target: str, patience: float) -> bytes | None:
    """What it answers, None if nothing; asked for as long as we lack the means to ask."""
    while True:
        try:
            with trio.move_on_after(min(patience, _LONGEST_PATIENCE)):
                return (await probe.ask(child.address, target))[1]
            return None
        except probe.NoAnswer:
            return None
        except probe.NotAsked:
            await trio.sleep(_PAUSE_WITHOUT_MEANS)


def _check_memory(child: Watched, limits: Watch) -> None:
    """Retire a child that leaks, while nobody uses it."""
    if limits.max_memory is None or child.users or child.pid is None:
        return
    used = anonymous_memory(child.pid)
    if used > limits.max_memory:
        words = f"it holds {used >> 20} MiB, and may hold {limits.max_memory >> 20}"
        log.warning("%s is retired: %s", child, words)
        child.retire(Cause(Kind.FINISHED, words))
