"""A keeper and its children, for the tests of whatever belongs to it."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from llamasup import events
from llamasup.children.keeper import Keeper
from llamasup.children.plan import Plan
from llamasup.errors import (
    LlamasupError,
    ModelUnavailable,
)
from llamasup.memory.room import Amounts
from tests.children.landlord import NOTHING_KNOWN, RoomForAll
from tests.harness import FAKE, Journal, eventually

Fake = Callable[..., Mapping[str, object]]
Planning = Callable[[Mapping[str, object]], Plan]

NO_ROOM = ("--fake-fail-load", "failed to allocate buffer for kv cache", "--fake-fail-above-ctx")
HOPELESS = ("--fake-fail-load", "unknown model architecture: 'x'")
LADDER = {"ladder.contexts": [32768, 16384, 8192]}


@asynccontextmanager
async def keeping(
    plan: Plan, free: Amounts = NOTHING_KNOWN, journal: events.Journal | None = None
) -> AsyncIterator[Keeper]:
    """A keeper, until the end of the block."""
    async with trio.open_nursery() as nursery:
        yield Keeper(plan, RoomForAll(free), journal or events.Journal(), nursery)
        nursery.cancel_scope.cancel()


async def refusal(keeper: Keeper) -> LlamasupError:
    with pytest.raises(ModelUnavailable) as failure:
        await keeper.ready()
    return failure.value


async def kill(keeper: Keeper, number: signal.Signals = signal.SIGKILL) -> None:
    """Kill its child, and wait until that is known."""
    child = keeper.child
    assert child is not None
    assert child.pid is not None
    os.kill(child.pid, number)
    await eventually(lambda: keeper.child is not child)


def contexts(journal: Journal) -> list[str]:
    """The contexts of the children that were started, in order."""
    starts = [entry["argv"] for entry in journal.entries("started")]
    return [argv[argv.index("--ctx-size") + 1] for argv in starts]


def as_program(path: Path) -> None:
    """Put the fake engine at `path`. Written beside, then moved there."""
    draft = path.with_suffix(".new")
    draft.write_text(f'#!/bin/sh\nexec {FAKE} "$@"\n')
    draft.chmod(0o755)
    draft.rename(path)
