"""What all requests hold in memory together, or on the disk: within one bound, and fairly.

In memory that is the head of a request, its body, what is held back of its answer, and what its
client has not taken yet, from the first byte until the answer is done; so requests that wait in a
queue count, too. If room is short, the client that holds most of it has to wait first (`shares`),
and is refused after some seconds. What the answers hold never waits: without room less is held
back.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

from llamasup.errors import LlamasupError
from llamasup.front.shares import Shares

SMALL: Final = 8 << 10
"""The bytes that a request may always hold: the number of connections bounds them."""

_PATIENCE: Final = 10.0


class OutOfRoom(LlamasupError):
    """There is no room for this request beside the others."""

    status = 503
    code = "too_much_buffered"
    retry_after = 5.0


class Room:
    """Memory or disk for requests. When it is short, clients wait, and take turns."""

    def __init__(self, limit: int, refusal: str) -> None:
        self._shares = Shares(limit)
        self._refusal = refusal
        self._waiting: OrderedDict[str, deque[_Wish]] = OrderedDict()

    @property
    def taken(self) -> int:
        """How much all clients together have taken."""
        return self._shares.taken

    def resize(self, limit: int) -> None:
        """Change the limit. What was taken stays taken."""
        self._shares.limit = limit
        self._admit()

    def take_now(self, holder: str, amount: int) -> bool:
        """Take this amount if this client may have it now. Returns whether it was taken."""
        if holder in self._waiting or not self._shares.allow(holder, amount):
            return False
        self._shares.take(holder, amount)
        return True

    def count(self, holder: str, amount: int) -> None:
        """This client holds so much already, whether or not it may: so others wait sooner."""
        self._shares.take(holder, amount)

    async def take(self, holder: str, amount: int) -> None:
        """Wait until this client may have this amount, and take it. Raises OutOfRoom if that
        takes too long.

        If this is cancelled, nothing is taken.
        """
        if self.take_now(holder, amount):
            return
        wish = _Wish(amount)
        self._waiting.setdefault(holder, deque()).append(wish)
        try:
            with trio.move_on_after(_PATIENCE):
                await wish.granted.wait()
                return
        except BaseException:
            if wish.granted.is_set():
                self.give_back(holder, amount)
            raise
        finally:
            self._forget(holder, wish)
            self._admit()  # the wishes behind it may be smaller
        if not wish.granted.is_set():
            raise OutOfRoom(self._refusal)

    def give_back(self, holder: str, amount: int) -> None:
        """Give this amount back."""
        if amount:
            self._shares.give_back(holder, amount)
            self._admit()

    def _admit(self) -> None:
        """Grant as many wishes as there is room for; the clients take turns."""
        while self._waiting and [holder for holder in list(self._waiting) if self._grant(holder)]:
            pass

    def _grant(self, holder: str) -> bool:
        wish = self._waiting[holder][0]
        if not self._shares.allow(holder, wish.amount):
            return False
        self._shares.take(holder, wish.amount)
        wish.granted.set()
        self._forget(holder, wish)
        return True

    def _forget(self, holder: str, wish: _Wish) -> None:
        queue = self._waiting.get(holder)
        if queue is not None and wish in queue:
            queue.remove(wish)
            if queue:
                self._waiting.move_to_end(holder)
            else:
                del self._waiting[holder]


class _Wish:
    def __init__(self, amount: int) -> None:
        self.amount = amount
        self.granted = trio.Event()


class Hold:
    """What one request at a time holds of a room."""

    def __init__(self, room: Room, holder: str) -> None:
        self.holder = holder
        """The client."""

        self.amount = 0
        """How much is held."""

        self._room = room

    def take_now(self, amount: int) -> bool:
        """Take this amount if this client may have it now. Returns whether it was taken."""
        taken = self._room.take_now(self.holder, amount)
        if taken:
            self.amount += amount
        return taken

    async def take(self, amount: int) -> None:
        """Take this amount; what is small at once, all else when this client may have it.

        Raises OutOfRoom if that takes too long. If this is cancelled, nothing is taken.
        """
        if self.amount + amount <= SMALL:
            self.count(amount)
        else:
            await self._room.take(self.holder, amount)
            self.amount += amount

    def count(self, amount: int) -> None:
        """So much more is held already, whether or not this client may have it."""
        self._room.count(self.holder, amount)
        self.amount += amount

    def give_back(self, amount: int) -> None:
        """Give this amount back."""
        self._room.give_back(self.holder, amount)
        self.amount -= amount

    def release(self) -> None:
        """Give all of it back."""
        self.give_back(self.amount)

    @contextmanager
    def counting(self, amount: int) -> Iterator[None]:
        """A block in which so much more is held, whether or not this client may have it."""
        self.count(amount)
        try:
            yield
        finally:
            self.give_back(amount)


class Part:
    """A part of what a request holds, whose size changes. It never waits."""

    def __init__(self, hold: Hold | None) -> None:
        """Without a `hold`, nothing is counted."""
        self._hold = hold
        self._size = 0

    def resize(self, size: int) -> bool:
        """Hold so much from now on. If there is no room for it, hold nothing, and return False."""
        growth = size - self._size
        if growth == 0 or self._hold is None:
            return True
        fits = growth < 0 or self._hold.take_now(growth)
        kept = size if fits else 0
        if kept < self._size:
            self._hold.give_back(self._size - kept)
        self._size = kept
        return fits

    def grow(self, size: int) -> None:
        """Hold so much from now on, whether or not there is room for it."""
        if self._hold is not None:
            self._hold.count(size - self._size)
            self._size = size
