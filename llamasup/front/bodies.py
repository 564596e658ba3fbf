"""Where the bodies of requests are kept until their answers are done, within common bounds.

Small bodies stay in memory. Large ones are written in pieces to a file without a name, from which
they can be sent more than once. If room is short, clients wait (`rooms`); their own time limits do
not run meanwhile.

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
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import trio

from llamasup import threads
from llamasup.config.schema import Bytes
from llamasup.errors import LlamasupError
from llamasup.front.rooms import Hold, Room
from llamasup.front.wish_readers import Reader
from llamasup.front.wishes import Wishes
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
_DISK_PATIENCE: Final = 30.0
_PAUSE_AFTER_FAILURE: Final = 60.0
_AT_A_TIME: Final = 8

T = TypeVar("T")


class StorageFailed(LlamasupError):
    """The body cannot be written to the disk, or not be read from it."""

    status = 503
    code = "storage_failed"
    retry_after = 5.0


class Bodies:
    """The memory and the disk that all requests share."""

    def __init__(self, memory: Bytes, folder: Path) -> None:
        self.memory = Room(
            memory,
            "requests hold too much memory, most of all yours (server.max_buffered): send fewer at"
            " once, or smaller ones, or try again later",
        )
        self.disk = Room(
            _MOST_ON_DISK,
            "the bodies of requests take too much of the disk, most of all yours: send fewer at"
            " once, or try again later",
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

    def __init__(self, bodies: Bodies, hold: Hold, reader: Callable[[], Reader] | None) -> None:
        """A body with a `reader` may be moved to the disk; one without stays in memory."""
        self.size = 0
        self._bodies = bodies
        self._hold = hold
        self._make_reader = reader
        self._reader: Reader | None = None
        self._in_memory = bytearray()
        self._given = 0
        """Bytes in memory that were given to the request."""

        self._file: _File | None = None
        self._stays = False  # in memory, because it could not be written

    async def add(self, data: bytes | bytearray) -> None:
        """Another part of it has come, of at most STEP bytes.

        Waits for room, and for the disk. Raises OutOfRoom and StorageFailed, and ClientError
        if no engine could read the body. If this is cancelled, the body can only be released.
        """
        if not self._hold.take_now(len(data)):
            if len(self._in_memory) >= _LEAST_PIECE:
                await self._move_to_disk()
            await self._hold.take(len(data))
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
            # Only the request holds it, so it goes when a filter puts another in its place.
            request.body, self._in_memory = self._in_memory, bytearray()
            self._given = len(request.body)
        return wishes

    def release(self) -> None:
        """It is not needed any more."""
        self._hold.give_back(len(self._in_memory) + self._given)
        self._in_memory, self._given = bytearray(), 0
        if self._file is not None:
            self._bodies.disk.give_back(self._hold.holder, self._file.owed)
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
        await self._bodies.disk.take(self._hold.holder, amount)
        self._file.owed += amount
        await self._file.append(self._in_memory)
        self._in_memory = bytearray()
        self._hold.give_back(amount)


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
