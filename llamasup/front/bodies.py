"""Where the bodies of requests are kept until their answers are done, within common bounds.

Small bodies stay in memory. Large ones are written in pieces to a file without a name, from which
they can be sent more than once. If room is short, the client that holds most of it has to wait
first (`shares`), and is refused after some seconds; its own time limits do not run meanwhile.

Files are written and read in a few worker threads: a disk that hangs delays large bodies, and
nothing else.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import tempfile
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import trio

from llamasup import threads
from llamasup.config.schema import Bytes
from llamasup.errors import LlamasupError
from llamasup.front.shares import Shares
from llamasup.front.wishes import Reader, Wishes
from llamasup.http.requests import Request

log = logging.getLogger(__name__)

LONGEST_IN_MEMORY: Final = 1 << 20
"""Measured: decoding this much takes 3 ms at worst."""

STEP: Final = 8 << 10
"""The most that is searched for wishes at once, which takes 4 ms at worst."""

_PIECE: Final = 1 << 20
_LEAST_PIECE: Final = 64 << 10
_PIECE_READ: Final = 256 << 10
_MOST_ON_DISK: Final = 4 << 30
_LEFT_ON_DISK: Final = 512 << 20
_PATIENCE: Final = 10.0
_DISK_PATIENCE: Final = 30.0
_PAUSE_AFTER_FAILURE: Final = 60.0
_AT_A_TIME: Final = 8

T = TypeVar("T")


class TooManyBodies(LlamasupError):
    """There is no room for this body beside the others."""

    status = 503
    code = "too_many_bodies"
    retry_after = 5.0


class StorageFailed(LlamasupError):
    """The body cannot be written to the disk, or not be read from it."""

    status = 503
    code = "storage_failed"
    retry_after = 5.0


class Room:
    """Memory or disk for bodies. When it is short, clients wait, and take turns."""

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

    async def take(self, holder: str, amount: int) -> None:
        """Wait until this client may have this amount, and take it. Raises TooManyBodies if that
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
            raise TooManyBodies(self._refusal)

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


class Bodies:
    """The memory and the disk that all bodies share."""

    def __init__(self, memory: Bytes, folder: Path) -> None:
        self.memory = Room(
            memory,
            "the bodies of requests take too much memory, most of all yours (server.body_memory)",
        )
        self.disk = Room(
            _MOST_ON_DISK, "the bodies of requests take too much of the disk, most of all yours"
        )
        self._folder = folder
        self._hands = trio.CapacityLimiter(_AT_A_TIME)
        self._disk_fails_until = -math.inf

    async def open_file(self) -> _File | None:
        """A new file, or None if the disk fails: then bodies stay in memory."""
        if trio.current_time() < self._disk_fails_until:
            return None
        file = _File(self._folder, self._hands)
        try:
            await file.open()
        except StorageFailed as error:
            log.warning("large bodies stay in memory, not in %s: %s", self._folder, error)
            self._disk_fails_until = trio.current_time() + _PAUSE_AFTER_FAILURE
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        return file


class IncomingBody:
    """One request's body, from its first byte until its answer is done."""

    def __init__(self, bodies: Bodies, holder: str, reader: Callable[[], Reader] | None) -> None:
        """A body with a `reader` may be moved to the disk; one without stays in memory."""
        self.size = 0
        self._bodies = bodies
        self._holder = holder
        self._make_reader = reader
        self._reader: Reader | None = None
        self._in_memory = bytearray()
        self._file: _File | None = None
        self._stays = False  # in memory, because it could not be written

    async def add(self, data: bytes | bytearray) -> None:
        """Another part of it has come, of at most STEP bytes.

        Waits for room, and for the disk. Raises TooManyBodies and StorageFailed, and ClientError
        if no engine could read the body. If this is cancelled, the body can only be released.
        """
        memory = self._bodies.memory
        if not memory.take_now(self._holder, len(data)):
            if len(self._in_memory) >= _LEAST_PIECE:
                await self._move_to_disk()
            await memory.take(self._holder, len(data))
        self._in_memory += data
        self.size += len(data)
        if self._reader is not None:
            self._reader.feed(bytes(data))
        if self.size > LONGEST_IN_MEMORY:
            await self._begin_to_read()
            if len(self._in_memory) >= _PIECE:
                await self._move_to_disk()

    async def end(self, request: Request) -> Wishes | None:
        """The body is complete: give it to the request. Returns its wishes, if it was searched for
        them while it came. Raises what `add` raises."""
        wishes = None if self._reader is None else self._reader.end()
        if self._file is not None:
            await self._move_to_disk()
            request.body = StoredBody(self._file)
        else:
            request.body = self._in_memory
        return wishes

    def release(self) -> None:
        """It is not needed any more."""
        self._bodies.memory.give_back(self._holder, len(self._in_memory))
        self._in_memory = bytearray()
        if self._file is not None:
            self._bodies.disk.give_back(self._holder, self._file.owed)
            self._file.close()
            self._file = None

    async def _begin_to_read(self) -> None:
        if self._make_reader is not None and self._reader is None:
            self._reader = self._make_reader()
            for at in range(0, len(self._in_memory), STEP):
                self._reader.feed(bytes(self._in_memory[at : at + STEP]))
                await trio.lowlevel.checkpoint()

    async def _move_to_disk(self) -> None:
        """Move what is in memory to the disk, if the disk can be written."""
        await self._begin_to_read()
        if self._reader is None or self._stays:
            return
        if self._file is None:
            self._file = await self._bodies.open_file()
            if self._file is None:
                self._stays = True
                return
        amount = len(self._in_memory)
        await self._bodies.disk.take(self._holder, amount)
        self._file.owed += amount
        await self._file.append(self._in_memory)
        self._in_memory = bytearray()
        self._bodies.memory.give_back(self._holder, amount)


class SmallBody:
    """A small body that came whole. It stays in memory until its answer is done."""

    @classmethod
    def of(cls, bodies: Bodies, holder: str, size: int) -> SmallBody | None:
        """Take memory for a body of this size; None if there is none now."""
        return cls(bodies, holder, size) if bodies.memory.take_now(holder, size) else None

    def __init__(self, bodies: Bodies, holder: str, size: int) -> None:
        self._bodies = bodies
        self._holder = holder
        self._size = size

    def release(self) -> None:
        """It is not needed any more."""
        self._bodies.memory.give_back(self._holder, self._size)


class StoredBody:
    """See `Stored`."""

    def __init__(self, file: _File) -> None:
        self._file = file

    def __len__(self) -> int:
        return self._file.size

    async def read(self, at: int) -> bytes:
        """See `Stored.read`."""
        return await self._file.read(at)


class _File:
    """A file without a name: the system removes it when llamasup ends, however that happens."""

    def __init__(self, folder: Path, hands: trio.CapacityLimiter) -> None:
        self.size = 0
        self.owed = 0
        """The room on the disk that was taken for it, and has to be given back."""

        self._folder = folder
        self._hands = hands
        self._one_at_a_time = threading.Lock()  # an abandoned thread may still be using the file
        self._file: BinaryIO | None = None
        self._closed = False

    async def open(self) -> None:
        """Open it. Raises StorageFailed. It has to be closed in any case, also when cancelled."""
        await _in_thread(self._open, hands=self._hands)

    async def append(self, data: bytearray) -> None:
        """Write `data`, which must not change. Raises StorageFailed."""
        await _in_thread(self._append, data, self.size, hands=self._hands)
        self.size += len(data)

    async def read(self, at: int) -> bytes:
        """The piece that begins there. Raises StorageFailed."""
        wanted = min(_PIECE_READ, self.size - at)
        piece = await _in_thread(self._read, at, wanted, hands=self._hands)
        if not piece and wanted:
            raise StorageFailed("the stored body of the request is cut off")
        return piece

    def close(self) -> None:
        """Close it in a thread, when no other thread uses it: freeing a large file takes long."""
        try:
            trio.lowlevel.start_thread_soon(self._close, lambda _: None)
        except RuntimeError:  # no thread can be started
            self._close()

    def _open(self) -> None:
        with self._one_at_a_time:
            if not self._closed:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115
                _refuse_a_full_disk(self._file.fileno())

    def _append(self, data: bytearray, at: int) -> None:
        with self._one_at_a_time, memoryview(data) as left:
            descriptor = self._descriptor()
            _refuse_a_full_disk(descriptor)
            written = 0
            while written < len(left):
                written += os.pwrite(descriptor, left[written:], at + written)

    def _read(self, at: int, wanted: int) -> bytes:
        with self._one_at_a_time:
            return os.pread(self._descriptor(), wanted, at)

    def _descriptor(self) -> int:
        if self._file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._file.fileno()

    def _close(self) -> None:
        with self._one_at_a_time:
            self._closed = True
            if self._file is not None:
                self._file.close()
                self._file = None


def _refuse_a_full_disk(descriptor: int) -> None:
    disk = os.fstatvfs(descriptor)
    if disk.f_bavail * disk.f_frsize < _LEFT_ON_DISK:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def _in_thread(act: Callable[..., T], *given: object, hands: trio.CapacityLimiter) -> T:
    try:
        return await threads.run(act, *given, limiter=hands, patience=_DISK_PATIENCE)
    except OSError as error:
        raise StorageFailed(f"the request's body cannot be stored: {error}") from error
