"""Lets an engine begin to load a model, hears how much memory it would take, and ends it.

llama-server says that some 20 ms after its start, before it takes any of the memory.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

import trio
from attrs import frozen

from llamasup.config.addresses import Address, UnixAddress
from llamasup.engine.breakdown import breakdown
from llamasup.errors import ModelUnavailable
from llamasup.memory.room import Amounts
from llamasup.processes.lifeline import Lifeline
from llamasup.processes.process import Process
from llamasup.processes.run_folder import RunFolder
from llamasup.shortages import is_shortage

_PATIENCE = 10.0


@frozen
class DryRun:
    """How to start the engine. It may listen at `address`, but is sent no request."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    address: Address


class Unheard(Exception):
    """The engine said nothing, or a shortage kept it from starting. Another try may get an
    answer."""


async def run_dry(wanted: DryRun, run_folder: RunFolder) -> Amounts | None:
    """What the engine says; None if it cannot be run, or ends without saying it.

    Raises Unheard, also after ten seconds of silence. When this returns or is cancelled, the
    process is gone.
    """
    try:
        process = await Process.start(
            wanted.argv, wanted.environment, lifeline=Lifeline(), stderr=subprocess.DEVNULL
        )
    except OSError as error:
        if is_shortage(error):
            raise Unheard(error.strerror) from error
        return None
    try:
        run_folder.mark(process.pid)
        with trio.move_on_after(_PATIENCE):
            return await _answer(process)
        raise Unheard(f"it said nothing for {_PATIENCE:.0f} s")
    except ModelUnavailable as error:
        raise Unheard(str(error)) from error
    finally:
        await process.kill()
        run_folder.unmark(process.pid)
        if isinstance(wanted.address, UnixAddress):
            with suppress(OSError):
                os.unlink(wanted.address.path)


async def _answer(process: Process) -> Amounts | None:
    [output] = process.outputs
    rest = b""
    async for data in output:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if (amounts := breakdown(line.decode(errors="replace"))) is not None:
                return amounts
    return None
