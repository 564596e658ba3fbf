"""Tells the journal what happens to one request: how it goes on, how it ends, and what it took."""

from __future__ import annotations

from typing import Final

import trio

from llamasup.errors import LlamasupError
from llamasup.events import (
    AnswerCut,
    FirstByte,
    Journal,
    MoreRefusals,
    Phase,
    RequestCame,
    RequestCancelled,
    RequestEnded,
    RequestEntered,
    RequestRefused,
    RequestReplayed,
    Usage,
)
from llamasup.front.answer import Answer, Seen
from llamasup.front.refusals import Refusals
from llamasup.front.way import Way
from llamasup.http.connection import ClientLeft, Connection
from llamasup.http.requests import Request
from llamasup.logs import cut

_TELLING_USAGE: Final = (RequestEnded, RequestCancelled)

_LONGEST_METHOD: Final = 20
_LONGEST_PATH: Final = 200


class Reporter:
    """Reports about one request, under its id."""

    def __init__(
        self,
        request: Request,
        connection: Connection,
        way: Way,
        journal: Journal,
        refusals: Refusals,
    ) -> None:
        self.key = ""
        """The name of the key that the request came with, once that is known."""

        self._request = request
        self._connection = connection
        self._way = way
        self._journal = journal
        self._heard = journal.heard
        self._refusals = refusals

    @property
    def tells_usage(self) -> bool:
        """Does anything listen to what answers take?"""
        return not self._heard.isdisjoint(_TELLING_USAGE)

    def came(self) -> None:
        """The request was read. Raises ClientLeft."""
        if RequestCame in self._heard:
            self._journal.tell(RequestCame(self._id, self._connection.peer, *self._named))

    def entered(self) -> None:
        """It has its lease."""
        if RequestEntered in self._heard:
            self._journal.tell(RequestEntered(self._id, self._way.model, self._way.age))

    def begins(self) -> None:
        """The first byte of its answer is sent to the client."""
        if FirstByte in self._heard:
            self._journal.tell(FirstByte(self._id, self._way.model, self._way.age))

    def replayed(self) -> None:
        """It is sent again."""
        self._journal.tell(RequestReplayed(self._id, self._way.model, *self._named))

    def cut(self, why: str, told: bool) -> None:
        """Its answer broke off, which its client was told or not."""
        self._journal.tell(AnswerCut(self._id, why, told))

    def refused(self, error: LlamasupError) -> None:
        """It is answered with this error. Not told for a client that is refused all the time."""
        try:
            peer = self._connection.peer
        except ClientLeft:
            return  # so the error is not seen either
        now = trio.current_time()
        if self._refusals.told(peer, now):
            status, code, why = error.status, error.code, str(error)
            self._journal.tell(RequestRefused(self._id, peer, *self._named, status, code, why))
            for client, number in self._refusals.untold(peer, now):
                self._journal.tell(MoreRefusals(client, number))

    def ended(self, answer: Answer) -> None:
        """It was answered, with this answer or with an error. Raises ClientLeft."""
        if RequestEnded not in self._heard:
            return
        usage, way = self._usage(answer, guess=answer.is_stream or _is_written(answer)), self._way
        who = self._connection.peer, self.key
        self._journal.tell(RequestEnded(self._id, way.model, way.age, usage, *who))

    def cancelled(self, answer: Answer) -> None:
        """It was given up, with so much of this answer. Raises ClientLeft."""
        if RequestCancelled not in self._heard:
            return
        phase = Phase.WAITING if answer.seen is Seen.NOTHING else Phase.ANSWERING
        usage, way = self._usage(answer, guess=True), self._way
        who = self._connection.peer, self.key
        self._journal.tell(RequestCancelled(self._id, way.model, phase, way.age, usage, *who))

    def _usage(self, answer: Answer, guess: bool) -> Usage | None:
        """What the answer took. If it does not say, that may be guessed, which is too low."""
        margins = answer.margins
        if margins is None:
            return None
        if (usage := margins.usage(answer.is_stream)) is None and guess:
            return margins.usage_at_least(len(self._request.body))
        return usage

    @property
    def _id(self) -> str:
        return self._request.id.decode()

    @property
    def _named(self) -> tuple[str, str]:
        """The method, and the path without its query: some clients put their key there."""
        method = self._request.method.decode("latin-1")
        path = self._request.target.partition(b"?")[0].decode("latin-1")
        return cut(method, _LONGEST_METHOD), cut(path, _LONGEST_PATH)


def _is_written(answer: Answer) -> bool:
    """Is it an answer, and no error, that a model has written?"""
    return answer.status == 200 and answer.margins is not None and answer.margins.is_written
