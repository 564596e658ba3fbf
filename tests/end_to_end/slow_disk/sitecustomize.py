"""On PYTHONPATH, this slows a Python down: what is below $SLOW_DISK takes $SLOW_DISK_SECONDS.

Each call is noted in $SLOW_DISK_NOTES, with whether it was made in the main thread. It stands in
for a file system that hangs where none can be mounted.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

_DISK = os.environ.get("SLOW_DISK", "")


def _slowed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def slowly(*arguments: Any, **options: Any) -> Any:
        path = arguments[0] if arguments else ""
        if isinstance(path, (str, bytes, os.PathLike)) and os.fsdecode(path).startswith(_DISK):
            where = "loop" if threading.current_thread() is threading.main_thread() else "thread"
            os.write(_notes, f"{where} {name} {_caller()}\n".encode())
            time.sleep(float(os.environ["SLOW_DISK_SECONDS"]))
        return function(*arguments, **options)

    return slowly


def _caller() -> str:
    frame: Any = sys._getframe(2)
    while frame and "llamasup" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else ""


if _DISK:
    _notes = os.open(os.environ["SLOW_DISK_NOTES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for _name in ("stat", "lstat", "open", "scandir", "listdir", "readlink", "access"):
        setattr(os, _name, _slowed(_name, getattr(os, _name)))
    io.open = builtins.open = _slowed("open", builtins.open)  # type: ignore[misc, assignment]
