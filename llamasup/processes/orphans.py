"""Cleans up what dead llamasups have left: removes their folders, and ends their children.

Each llamasup holds a lock on its run folder as long as it lives. A folder whose lock is free
belonged to a dead one.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import trio

from llamasup.processes.identity import MARK, Identity

log = logging.getLogger(__name__)

_GRACE = 2.0
_DEATH_PATIENCE = 5.0


def clear_the_dead(base: Path) -> Iterator[Identity]:
    """Remove the run folders of dead llamasups below `base`; yield their children that live on.

    Raises OSError. Only one llamasup at a time may call this.
    """
    for folder in base.iterdir():
        if not folder.name.isdecimal() or folder.lstat().st_uid != os.geteuid():
            continue
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # it is no folder, or another user's
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its llamasup lives
        else:
            yield from (child for child in _marked(folder) if child.alive())
            _remove(folder)
        finally:
            os.close(descriptor)


def _remove(folder: Path) -> None:
    """Remove only what llamasup puts there: other programs may keep files below the base."""
    for pattern in (f"{MARK}*", "*.sock"):
        for remains in folder.glob(pattern):
            remains.unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def _marked(folder: Path) -> Iterator[Identity]:
    for mark in folder.glob(f"{MARK}*"):
        if mark.lstat().st_uid != os.geteuid():
            continue  # written by another user
        if process := Identity.marked(mark.name):
            yield process


async def sweep(left: list[Identity], patience: float = 0.0) -> None:
    """End the children that dead llamasups have `left`, and wait until they are gone, but not for
    ever.

    First they get `patience` seconds to end by themselves: they may be about to finish an answer.
    If this is cancelled, those that are still there stay, with their marks.
    """
    if left and patience:
        log.warning(
            "waiting up to %g s for %d processes of a llamasup that died", patience, len(left)
        )
        left = await _until_gone(left, patience)
    for number, grace in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _DEATH_PATIENCE)):
        for process in left:
            log.warning("ending process %d, left by a llamasup that died", process.pid)
            process.signal(number)
        left = await _until_gone(left, grace)


async def _until_gone(processes: list[Identity], patience: float) -> list[Identity]:
    """Wait for the processes to end; return those that are still there."""
    with trio.move_on_after(patience):
        # They are not our children, so we must look again and again whether they are gone.
        while any(process.alive() for process in processes):  # noqa: ASYNC110
            await trio.sleep(0.02)
    return [process for process in processes if process.alive()]
