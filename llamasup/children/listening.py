"""Who listens on a port, as the kernel says (Linux): the child that was told to, or another one.

A program that takes the port just before the child does is asked in its place, until the child has
ended because it could not listen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Final

from llamasup.memory.host import family

_PROC: Final = Path("/proc")
_LISTENS: Final = "0A"
_ROOT: Final = 0


class Listener(Enum):
    """Who listens on the port of a child."""

    CHILD = "child"
    """The child itself, or a process that it has started; also if the kernel does not say."""

    ANOTHER = "another"
    """Another process of this user or of root: what publishes the port of a container does that,
    but a program that was quicker than the child does it as well."""

    ANOTHER_USER = "another user"


def listener(port: int, pid: int, proc: Path = _PROC) -> Listener:
    """Who listens on this port of the child with this pid?"""
    tables = (_text(proc / "net" / name) for name in ("tcp", "tcp6"))
    sockets = [found for table in tables for found in listening(table, port)]
    if not sockets or not _held(family(pid), proc).isdisjoint(inode for _, inode in sockets):
        return Listener.CHILD
    users = {user for user, _ in sockets}
    return Listener.ANOTHER if users <= {_ROOT, os.geteuid()} else Listener.ANOTHER_USER


def listening(table: str, port: int) -> list[tuple[int, str]]:
    """From /proc/net/tcp: the user and the inode of each socket that listens on this port."""
    row = rf"(?m)^ *\d+: [0-9A-F]+:{port:04X} [0-9A-F:]+ {_LISTENS} \S+ \S+ \S+ +(\d+) +\d+ (\d+) "
    return [(int(user), inode) for user, inode in re.findall(row, table)]


def _held(processes: Iterable[int], proc: Path) -> set[str]:
    """The inodes of all sockets that these processes have open."""
    inodes = set()
    for process in processes:
        with suppress(OSError):  # it is gone, or another user's
            for file in os.listdir(proc / str(process) / "fd"):
                with suppress(OSError):
                    link = os.readlink(proc / str(process) / "fd" / file)
                    if link.startswith("socket:["):
                        inodes.add(link[8:-1])
    return inodes


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
