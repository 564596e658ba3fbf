"""A lease on whatever is free first: a child of ours, or an instance elsewhere.

A loaded child with a free slot comes first, then an instance that has room. Otherwise the request
waits for both at once: a child is loaded meanwhile, if there is room for one.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from llamasup.errors import LlamasupError
from llamasup.pool.child_lease import ChildLease
from llamasup.pool.lease import Lease
from llamasup.pool.remote_lease import RemoteLease


class EitherLease:
    """Enters one of two leases, and leaves that one."""

    def __init__(
        self,
        own: ChildLease,
        is_free: Callable[[], bool],
        remote: Callable[[], RemoteLease],
    ) -> None:
        """`is_free` says whether a child would take the request at once."""
        self._own = own
        self._is_free = is_free
        self._remote = remote
        self._entered: Lease

    def outlook(self) -> str:
        """What the request waits for, in words for its client."""
        return self._own.outlook()

    async def __aenter__(self) -> Lease:
        if self._is_free():
            self._entered = await self._own.__aenter__()
        else:
            self._entered = await self._at_once_elsewhere() or await self._first()
        return self._entered

    async def __aexit__(self, *error: object) -> None:
        await self._entered.__aexit__(*error)

    async def _at_once_elsewhere(self) -> Lease | None:
        """An instance that has room; None if it is gone, though we believe that it is there."""
        remote = self._remote()
        try:
            return remote if await remote.entered_at_once() else None
        except LlamasupError:
            return None

    async def _first(self) -> Lease:
        """Enter both, and leave the second. Raises what the child's lease raised if none can be
        entered. If this is cancelled, neither is held."""
        entered: list[Lease] = []
        failures: dict[Lease, LlamasupError] = {}

        async def enter(lease: Lease) -> None:
            try:
                await lease.__aenter__()
            except LlamasupError as error:
                failures[lease] = error
                return
            entered.append(lease)
            nursery.cancel_scope.cancel()

        try:
            async with trio.open_nursery() as nursery:
                for lease in (self._own, self._remote()):
                    nursery.start_soon(enter, lease)
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            await _leave(entered)
            raise
        await _leave(entered[1:])
        if entered:
            return entered[0]
        raise failures[self._own]


async def _leave(leases: list[Lease]) -> None:
    """Nothing was sent, so leaving takes no time."""
    for lease in leases:
        with trio.CancelScope(shield=True):
            await lease.__aexit__(None, None, None)
