"""A lease on an instance elsewhere: a place there, and the connection to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from llamasup.endpoints.balance import Where
from llamasup.endpoints.forwarding import head_there, told_to_llamasup, with_name_there
from llamasup.endpoints.instance import Instance
from llamasup.errors import ChildLost, LlamasupError, ModelMoved, OutOfMemory
from llamasup.http.requests import Request
from llamasup.http.wire import Wire
from llamasup.pool.lease import Lease
from llamasup.pool.outside import Errand, Outside
from llamasup.pool.trail import MOST_MOVES, MOST_RECALLS
from llamasup.pool.work import Work
from llamasup.shortages import is_shortage
from llamasup.upstream import Signature, Verdict

_EXPECTED: Final = (Where.LOADED, Where.LOADS, Where.FITS)
_LOADING: Final = "Loading model"
_COME_AGAIN: Final = 1.0
"""Seconds for which an instance that sends a request away gets no more, if others have room."""


class RemoteLease(Lease):
    """Holds, within `async with`, an instance that has accepted a connection, and a slot of it.

    Entering waits for one, and tries the next one if an instance does not accept. It raises
    QueueFull, QueueTimeout, EndpointsAway and ModelNotFound. If it is cancelled, nothing is held.
    Leaving closes the connection, which cancels what the instance still does for the request. That
    a client leaves says nothing about the instance.
    """

    def __init__(self, outside: Outside, errand: Errand) -> None:
        self._outside = outside
        self._errand = errand
        self._wire: Wire | None = None
        self._instance: Instance
        self._has_answered = False
        self._sent_away = False
        self._taken_back = False
        self._expected: Where | None = None
        """Where another llamasup has the model, as far as we know; None if that is all the same."""

    def __str__(self) -> str:
        return f"the instance {self._instance.name}"

    @property
    def signature(self) -> Signature:
        """See `Upstream.signature`."""
        return self._instance.signature(self._errand.model)

    def outlook(self) -> str:
        """See `Lease.outlook`."""
        return self._outside.outlook(self._errand.model)

    async def __aenter__(self) -> RemoteLease:
        while True:
            self._instance = await self._outside.enter(self._errand)
            if await self._is_accepted():
                return self

    async def entered_at_once(self) -> bool:
        """Enter if that takes no waiting, as an instance has room and accepts. True if it is
        entered; otherwise, and if this is cancelled, nothing is held."""
        while self._outside.try_enter(self._errand):
            assert self._errand.instance is not None  # it was let in
            self._instance = self._errand.instance
            if await self._is_accepted():
                return True
        return False

    async def _is_accepted(self) -> bool:
        """Does the instance accept a connection? If it does not, it is left. Raises ChildLost if
        we cannot even try."""
        try:
            self._wire = await self._instance.connect()
            self._expected = self._expectation()
            self._errand.recall = self._take_back
            return True
        except OSError as error:
            self._outside.leave(self._errand)
            if is_shortage(error):
                raise ChildLost(f"{self} cannot be asked: {error.strerror}") from error
            self._note_away(error.strerror or str(error))
            return False
        except BaseException:
            self._outside.leave(self._errand)
            raise

    def _expectation(self) -> Where | None:
        """Another llamasup is told what is expected of it, but not for ever: at last, it has to do
        what it can."""
        instance, errand = self._instance, self._errand
        if not instance.llamasup or errand.trail.moves >= MOST_MOVES:
            return None
        return errand.was if errand.was in _EXPECTED else None

    def _take_back(self) -> bool:
        """Have the request sent again, as another instance would answer sooner. False if that is
        too late, or was done too often."""
        if self._has_answered or self._errand.trail.recalls >= MOST_RECALLS:
            return False
        assert self._wire is not None  # it has been entered
        self._taken_back = True
        self._wire.interrupt()
        return True

    def _note_away(self, why: str) -> None:
        self._errand.trail.tried.add(self._instance.name)
        self._instance.unreachable(why)

    async def connect(self) -> Wire:
        """See `Upstream.connect`: the connection was made when the lease was entered."""
        assert self._wire is not None  # it has been entered
        return self._wire

    async def __aexit__(self, *error: object) -> None:
        if self._wire is not None:
            self._wire.close()
        if not any(error) and not self._sent_away:
            self.progressed()
        self._outside.leave(self._errand)

    async def dressed(self, request: Request) -> Request:
        """See `Upstream.dressed`: the model's name becomes the one that it has there."""
        return with_name_there(request, self._errand.model, self._instance)

    def head_for(self, request: Request, target: bytes) -> bytes:
        """See `Upstream.head_for`."""
        instance, errand = self._instance, self._errand
        told: Iterable[tuple[bytes, bytes]] = ()
        if instance.llamasup:
            told = told_to_llamasup(errand.client(), errand.priority, self._expected)
        return head_there(request, target, instance, self._outside.fleet.ourselves, told)

    def progressed(self) -> None:
        """See `Upstream.progressed`."""
        if not self._has_answered:
            self._has_answered = True
            self._instance.served()

    async def survived(self) -> bool:
        """See `Upstream.survived`: is it still there?"""
        try:
            (await self._instance.connect()).close()
        except OSError:
            return False
        return True

    def judge(self, status: int, message: str, size: int) -> Verdict:
        """See `Upstream.judge`."""
        verdict = self._verdict(status, message)
        if verdict is Verdict.NOT_HERE:
            self._sent_away = True
        return verdict

    def _verdict(self, status: int, message: str) -> Verdict:
        instance = self._instance
        if self._has_answered or self._errand.work is Work.LOOK:
            return Verdict.ITS_OWN
        if status == 503 and self._expected is not None and ModelMoved.WORDS in message:
            instance.lost(self._errand.model)
            self._errand.trail.moves += 1
            return Verdict.NOT_HERE
        verdict = self._verdict_on_instance(status, message)
        if verdict is Verdict.NOT_HERE:
            self._errand.trail.tried.add(instance.name)
        return verdict

    def _verdict_on_instance(self, status: int, message: str) -> Verdict:
        instance = self._instance
        if status == 503 and _LOADING in message:
            instance.loads()
            return Verdict.NOT_HERE
        if status in (401, 403):
            instance.refused(f"it refuses our key ({status} {message})")
            return Verdict.NOT_HERE
        if status not in (404, 429, 503, 508) or not self._outside.others(self._errand):
            return Verdict.ITS_OWN
        if status in (429, 503):
            instance.turned_away(_COME_AGAIN)
        return Verdict.NOT_HERE

    def broke_off(self) -> None:
        """See `Lease.broke_off`."""
        if self._sent_away:
            return
        if self._has_answered:
            self._instance.ask_again()
            return
        self._sent_away = True
        if self._taken_back:
            self._errand.trail.recalls += 1
            return
        self._errand.trail.tried.add(self._instance.name)
        self._errand.trail.failures += 1
        self._instance.failed("it took a request, and gave no answer")

    async def outcome(self) -> Callable[[], bool]:
        """See `Lease.outcome`: what an instance does is not the request's doing, unless several
        give no answer to it."""
        if self._errand.trail.is_too_long:
            raise ChildLost(
                f"{self._errand.trail.failures} instances took this request, and gave no answer"
            )
        return lambda: True

    def exhausted(self, words: str) -> LlamasupError:
        """See `Lease.exhausted`."""
        return OutOfMemory(f"{self} ran out of memory: {words}")


class RemoteGlance(RemoteLease):
    """A look at an instance elsewhere: it waits for none, and holds none of its slots."""

    async def __aenter__(self) -> RemoteLease:
        self._instance = self._outside.to_look_at(self._errand)
        try:
            self._wire = await self._instance.connect()
        except OSError as error:
            self._note_away(error.strerror or str(error))
            raise ChildLost(f"{self} cannot be reached: {error.strerror}") from error
        return self
