"""The one way by which llamasup's words reach stderr. No task ever waits for it.

What reads stderr may stop reading: a pager, a terminal in Ctrl-S, a log driver that hangs. So a
separate thread writes, from a ring of lines with a bounded size. When the ring is full the newest
lines are dropped, and counted where they are missing: how trouble began says more than how it went
on.

Names, targets and an engine's words come from outside. So a formatter makes each record one line of
bounded length, without characters that a terminal would obey: text for people, or JSON for
programs.
"""

from __future__ import annotations

import io
import json
import logging
import os
import select
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

from attrs import asdict

LONGEST: Final = 2000
"""Characters of a record's message."""

MOST_LINES: Final = 4096
MOST_BYTES: Final = 1 << 20
_AT_ONCE: Final = 64 << 10
_LAST_WORDS: Final = 1.0
"""Seconds for what is still to be written at the end."""

_FIRST_OF_TRACEBACK, _LAST_OF_TRACEBACK = 10, 60

Say = Callable[[str], None]
"""Takes lines for the operator that are no records, such as the greeting."""


@contextmanager
def flowing(level: str, form: str = "text") -> Iterator[Say]:
    """Until the end of the block the log is written, from `level` upwards, as "text" or as "json",
    and so is all else that goes to `sys.stderr`.

    No task has to wait for that. The end of the block waits a second for the last lines.
    """
    outlet = Outlet(_descriptor())
    handler = _Handler(outlet)
    root = logging.getLogger()
    root.addHandler(handler)
    change(level, form)
    before, sys.stderr = sys.stderr, _Stderr(handler)
    try:
        yield handler.say
    finally:
        sys.stderr = before
        root.removeHandler(handler)
        outlet.close(_LAST_WORDS)


def change(level: str, form: str) -> None:
    """From now on the log has this level and this form (see `flowing`)."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    for handler in root.handlers:
        if isinstance(handler, _Handler):
            handler.use(JsonFormatter() if form == "json" else Formatter())


def _descriptor() -> int:
    # If stderr was closed before we started, a client's socket may have its number by now.
    return sys.stderr.fileno() if sys.stderr else os.open(os.devnull, os.O_WRONLY)


def escaped(text: str) -> str:
    """The text with escapes for what a terminal would not show as it is: controls, marks of
    direction, line ends, halves of characters."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def cut(text: str, longest: int = LONGEST) -> str:
    """The text, or its beginning and how much is missing."""
    missing = len(text) - longest
    return text if missing <= 0 else f"{text[:longest]}… ({missing} characters more)"


class Formatter(logging.Formatter):
    """A record as one line. The traceback of a mistake of ours follows it, each line indented."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        line = f"{self.formatTime(record)} {record.levelname:7} {_plain(record.getMessage())}"
        if record.exc_info:
            line += "".join(f"\n    {_plain(said)}" for said in _told(record.exc_info[1]))
        return line

    def aside(self, text: str) -> str:
        """What is no record, such as the greeting."""
        return text


class JsonFormatter(Formatter):
    """A record as one JSON document, which also has what its event says (`narrator`)."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        document = _document(record.created, record.levelname.lower(), record.getMessage())
        if (event := getattr(record, "event", None)) is not None:
            document["event"] = type(event).__name__
            document |= {name: _shortened(part) for name, part in asdict(event).items()}
        if record.exc_info:
            document["traceback"] = [cut(said) for said in _told(record.exc_info[1])]
        return json.dumps(document, default=lambda part: part.value)  # of an enum

    def aside(self, text: str) -> str:
        """See `Formatter.aside`."""
        return json.dumps(_document(time.time(), "info", text))


def _document(moment: float, level: str, message: str) -> dict[str, object]:
    when = datetime.fromtimestamp(moment, UTC)
    return {
        "time": when.isoformat(timespec="milliseconds"),
        "level": level,
        "message": cut(message),
    }


def _shortened(part: object) -> object:
    return cut(part) if isinstance(part, str) else part


def _plain(text: str) -> str:
    return cut(escaped(cut(text)))  # an escape is longer than what it stands for


def _told(error: BaseException | None) -> list[str]:
    lines = [] if error is None else "".join(traceback.format_exception(error)).splitlines()
    left_out = len(lines) - _FIRST_OF_TRACEBACK - _LAST_OF_TRACEBACK
    if left_out > 0:
        lines[_FIRST_OF_TRACEBACK:-_LAST_OF_TRACEBACK] = [f"… ({left_out} lines more)"]
    return lines


class Outlet:
    """The ring, and the thread that empties it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._size = 0
        self.aside: Callable[[str], str] = str
        """Gives a word of the outlet's own the form of the log."""

        self._dropped = 0
        self._in_hand = False
        self._changed = threading.Condition()
        self._writer: threading.Thread | None = None

    def say(self, text: str) -> None:
        """Take a line, or several that belong together. Never waits, never fails."""
        data = (text[:_AT_ONCE] + "\n").encode(errors="backslashreplace")
        with self._changed:
            self._take(data)
            self._changed.notify()
        if not self._has_writer():
            self._write_in_passing()

    def close(self, patience: float) -> None:
        """Return when everything is written, or after `patience` seconds."""
        deadline = time.monotonic() + patience
        with self._changed:
            if self._has_writer():
                self._changed.wait_for(lambda: not (self._lines or self._in_hand), patience)
                return
        while self._lines and (left := deadline - time.monotonic()) > 0:
            self._write_in_passing(left)

    def _take(self, data: bytes) -> None:
        """Put a line into the ring, or drop it.

        After a drop, lines are taken again only when half of the ring is free. So there is one
        long gap with one note, and not many short ones.
        """
        room_for = 2 if self._dropped else 1
        if len(self._lines) < MOST_LINES // room_for and self._size < MOST_BYTES // room_for:
            self._tell_of_gap()
            self._lines.append(data)
            self._size += len(data)
        else:
            self._dropped += 1

    def _tell_of_gap(self) -> None:
        if self._dropped:
            gap = self.aside(f"({self._dropped} lines are missing here: nobody read the log)")
            self._lines.append(data := gap.encode() + b"\n")
            self._size += len(data)
            self._dropped = 0

    def _has_writer(self) -> bool:
        if self._writer is None:
            # It must not hold up the end of the process.
            writer = threading.Thread(target=self._write, name="log", daemon=True)
            try:
                writer.start()
            except RuntimeError:
                return False  # the next line tries to start it again
            self._writer = writer
        return True

    def _write(self) -> None:
        while True:
            with self._changed:
                self._in_hand = False
                self._changed.notify()
                self._changed.wait_for(lambda: self._lines)
                data = self._next(_AT_ONCE)
                self._in_hand = True
            self._let_out(data)

    def _next(self, most: int) -> bytes:
        """Take the next lines out, `most` bytes of them, but at least one line."""
        data = [self._lines.popleft()]
        size = len(data[0])
        while self._lines and size + len(self._lines[0]) <= most:
            data.append(self._lines.popleft())
            size += len(data[-1])
        self._size -= size
        if not self._lines:
            self._tell_of_gap()
        return b"".join(data)

    def _let_out(self, data: bytes) -> None:
        """Write it, however long that takes. If the other end is closed, drop it."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                self._has_room(None)
            except OSError:
                return

    def _write_in_passing(self, patience: float = 0.0) -> None:
        """Write what stderr takes within `patience`, for want of a thread that does it."""
        with self._changed:
            while self._lines and self._has_room(patience):
                data = self._next(select.PIPE_BUF)  # a pipe with room has room for at least this
                try:
                    rest = data[os.write(self._descriptor, data[: select.PIPE_BUF]) :]
                except OSError:
                    return
                if rest:
                    self._lines.appendleft(rest)
                    self._size += len(rest)

    def _has_room(self, patience: float | None) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(None if patience is None else patience * 1000))


class _Handler(logging.Handler):
    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet

    def use(self, formatter: Formatter) -> None:
        """From now on, write in this form."""
        self.setFormatter(formatter)
        self._outlet.aside = formatter.aside

    def say(self, text: str) -> None:
        """Write what is no record."""
        self._outlet.say(self._outlet.aside(text))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._outlet.say(self.format(record))
        except Exception:
            self.handleError(record)


class _Stderr(io.TextIOBase):
    """For Python's warnings, and for all else that writes to `sys.stderr`."""

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if said := text.rstrip("\n"):
            self._handler.say("\n".join(map(_plain, said.split("\n"))))
        return len(text)
