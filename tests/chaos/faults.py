"""The catalogue of faults that a signal can do: which signal, and the moment at which it strikes.

A moment is waited for, never guessed: the child's pid, its mapped model file, a request that it
works on, tokens that a client has read.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from enum import Enum
from pathlib import Path
from random import Random

import trio
from attrs import frozen

from tests.chaos.load import LONGEST_CHAIN, PATIENCE, STREAMS, WHOLES, Kind, Request, long_prompt
from tests.chaos.subject import Subject, has_open
from tests.harness import eventually


class Moment(Enum):
    """When the child is struck."""

    BEFORE_LOAD = "before load"
    LOADING = "during load"
    PREFILL = "in prefill"
    FIRST_TOKEN = "at the first token"
    MID_STREAM = "mid-stream"
    IDLE = "between requests"


OF_A_LOAD = (Moment.BEFORE_LOAD, Moment.LOADING)
OF_A_LIFE = (Moment.PREFILL, Moment.FIRST_TOKEN, Moment.MID_STREAM, Moment.IDLE)
SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)


@frozen
class Fault:
    """One kind of fault."""

    signal: signal.Signals
    moment: Moment

    def __str__(self) -> str:
        return f"{self.signal.name} {self.moment.value}"


@frozen
class Struck:
    """Whom a fault struck, and when (seconds since the epoch)."""

    pid: int
    at: float


class Attack:
    """One fault on one model's child, and the request that suffers it."""

    def __init__(
        self, fault: Fault, subject: Subject, model: str, model_file: Path, chance: Random
    ) -> None:
        self.fault = fault
        self.model = model
        self._subject = subject
        self._model_file = model_file
        self._chance = chance
        self.victim = self._request()

    def _request(self) -> Request:
        streams = self.fault.moment in (Moment.FIRST_TOKEN, Moment.MID_STREAM)
        kind: Kind = self._chance.choice(STREAMS if streams else [*STREAMS, WHOLES[0], WHOLES[1]])
        tokens = LONGEST_CHAIN - 100 if streams else self._chance.randint(1, 300)
        prompt = long_prompt(self._chance) if self.fault.moment is Moment.PREFILL else "count"
        return Request(self._subject.address, self.model, kind, tokens, prompt)

    async def run(self) -> Struck | None:
        """Let the request run, and strike at the moment; returns when the request has ended.

        None if the moment never came: in bad weather a child may not even start.
        """
        if self.fault.moment is Moment.IDLE:
            struck = self._strike()
            await self.victim.run()
            return struck
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.victim.run)
            await self._moment()
            return self._strike()

    async def _moment(self) -> None:
        """Wait for it, or until the request has its answer without it."""
        moment = self.fault.moment
        await eventually(lambda: self._pid or self.victim.outcome, PATIENCE)
        if moment is Moment.LOADING:
            await eventually(
                lambda: has_open(self._pid, self._model_file) or self.victim.outcome, PATIENCE
            )
        elif moment is Moment.PREFILL:
            await eventually(self._works)
            await trio.sleep(self._chance.uniform(0, 0.1))  # anywhere within
        elif moment is Moment.FIRST_TOKEN:
            await self.victim.reached(1)
        elif moment is Moment.MID_STREAM:
            await self.victim.reached(self._chance.randint(2, 500))

    @property
    def _pid(self) -> int:
        """The child's; 0 if there is none now."""
        return self._subject.children().get(self.model, 0)

    async def _works(self) -> bool:
        if self.victim.outcome is not None:
            return True
        try:
            child = (await self._subject.status(self.model))["child"]
        except (KeyError, OSError):  # in bad weather, control may have no answer
            return False
        return bool(child and child["slots_taken"])

    def _strike(self) -> Struck | None:
        if pid := self._pid:
            with suppress(ProcessLookupError):
                os.kill(pid, self.fault.signal)
                return Struck(pid, time.time())
        return None
