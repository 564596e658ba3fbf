"""Worker threads: what may block runs in one, so that the loop waits for no disk and no driver.

A thread that hangs cannot be ended. The task that waits for it can be cancelled, and leaves the
thread behind. Such a thread delays nothing, not even the end of llamasup. So only work that may be
left half done runs here. And each kind of work has a limit of its own, so that none can take all
the threads.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from typing import TypeVar

import trio

from llamasup.shortages import no_thread_as_shortage

Result = TypeVar("Result")


async def run(
    function: Callable[..., Result],
    *arguments: object,
    limiter: trio.CapacityLimiter | None = None,
    patience: float = math.inf,
) -> Result:
    """What `function` returns, or raises. TimeoutError if that takes longer than `patience`.

    OSError, a shortage, if no thread can be started. When this is cancelled or patience ends, the
    thread is left behind; `limiter` counts it until it ends.
    """
    with trio.move_on_after(patience), no_thread_as_shortage():
        return await trio.to_thread.run_sync(
            function, *arguments, abandon_on_cancel=True, limiter=limiter
        )
    raise TimeoutError(errno.ETIMEDOUT, f"no answer within {patience:g} s")


class Lane:
    """Threads for places that may hang, `most` at once. A place that hangs is waited for once, and
    not again until it has answered.

    A place is something that hangs as a whole, such as a folder.
    """

    def __init__(self, most: int = 1) -> None:
        self._limiter = trio.CapacityLimiter(most)
        self._inside: set[object] = set()
        self._given_up: set[object] = set()

    async def run(
        self,
        function: Callable[..., Result],
        *arguments: object,
        patience: float,
        place: object = None,
    ) -> Result:
        """See `run`. TimeoutError at once if the place still hangs from an earlier call."""

        def visit() -> Result:
            self._inside.add(place)
            try:
                return function(*arguments)
            finally:
                self._inside.discard(place)

        self._given_up &= self._inside
        if place in self._given_up:
            raise TimeoutError(errno.ETIMEDOUT, "it has not answered yet")
        try:
            return await run(visit, limiter=self._limiter, patience=patience)
        except TimeoutError:
            self._given_up.add(place)
            raise
