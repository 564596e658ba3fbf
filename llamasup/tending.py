"""What happens when a task of ours falls: when it ends with an error, by a mistake or a shortage.

Most tasks fall alone: their client or their model is told, and can ask again. Tasks on which
everything depends begin again, after longer and longer pauses, for as long as llamasup runs.
Without them, idle models would no longer be unloaded, or clients that leave would not be noticed.
The architecture page says which task is of which kind, and which few end llamasup.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from llamasup.errors import LlamasupError
from llamasup.shortages import is_shortage

log = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 60.0
"""Seconds. After a task has run for this long, the pauses begin with the first one again."""

Task = Callable[..., Awaitable[object]]


async def alone(what: str, task: Task, *arguments: object) -> None:
    """Run the task. If it falls, the log says so, and nothing else falls. Cancelling this cancels
    the task."""
    try:
        await task(*arguments)
    except* Exception as errors:
        tell_of_fall(what, errors)


async def again(what: str, task: Task, *arguments: object) -> None:
    """Run the task until it returns, and begin it again whenever it falls: after 0.1, 0.2 … 60 s.

    Cancelling this cancels the task. The task must be able to begin again.
    """
    pause = FIRST_PAUSE
    while True:
        began = trio.current_time()
        try:
            await task(*arguments)
            return
        except* Exception as errors:
            if trio.current_time() - began >= LONGEST_PAUSE:
                pause = FIRST_PAUSE
            tell_of_fall(what, errors, f", and begins again in {pause:g} s")
        await trio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def sole(error: Exception) -> Exception:
    """The one error within the groups that nurseries made; a group of several stays a group."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def tell_of_fall(what: str, error: Exception, then: str = "") -> str:
    """Log the error, with its traceback if it is a mistake of ours; return the reason for
    clients."""
    error = sole(error)
    if isinstance(error, OSError) and is_shortage(error):
        log.error("%s fell (%s)%s", what, error.strerror, then)
        return error.strerror or str(error)
    if isinstance(error, LlamasupError):
        log.error("%s fell (%s)%s", what, error, then)
        return str(error)
    log.error("%s fell%s", what, then, exc_info=error)
    return f"a mistake of ours, {type(error).__name__}: the log says more"
