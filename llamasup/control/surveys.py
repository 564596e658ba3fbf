"""Surveys of what fits, which requests share: one of thousands of models takes seconds."""

from __future__ import annotations

import math
from typing import Final

import trio

from llamasup.control import model_fits
from llamasup.control.asgi import let_go, one_by_one
from llamasup.pool.fits import survey
from llamasup.pool.pool import Pool
from llamasup.pool.roster import Roster

_NONE: Final = (-math.inf, None)


class Surveys:
    """Makes one survey at a time."""

    def __init__(self, pool: Pool, roster: Roster) -> None:
        self._pool = pool
        self._roster = roster
        self._surveying = trio.Lock()
        self._last: tuple[float, object] = _NONE
        """When the last survey began, and its result."""

    async def document(self) -> object:
        """What every model needs, and what there is room for. Raises EngineUnusable."""
        asked_at = trio.current_time()
        await self._roster.refresh()
        async with self._surveying:
            # Requests share a survey that began after they came.
            begun_at, fits = self._last
            if begun_at < asked_at:
                begun_at, fits = trio.current_time(), await self._survey()
                self._last = begun_at, fits
            if not self._surveying.statistics().tasks_waiting:
                self._last = _NONE  # it may be a megabyte
        return fits

    async def _survey(self) -> object:
        surveyed = await survey(self._pool)
        entries = await one_by_one(let_go(surveyed.fits), model_fits.entry)
        return model_fits.opening(surveyed) | {"models": entries}
