"""One client's connection: requests are read from it, one after another, and each is answered.

This file reads, under limits of time and size. What then happens to a request is an `exchange`.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable

import trio

from llamasup.access import pages
from llamasup.errors import LlamasupError, RequestTimeout
from llamasup.front import callers
from llamasup.front.bodies import STEP, IncomingBody
from llamasup.front.body_limits import LONGEST_ELSEWHERE, BodyLimits, check_chunks, take_content
from llamasup.front.desk import Desk
from llamasup.front.exchange import Exchange
from llamasup.front.guests import Guests
from llamasup.front.own_replies import error_reply
from llamasup.front.relay import ReplyCut
from llamasup.front.rooms import Hold
from llamasup.front.wish_readers import Reader
from llamasup.front.wishes import Wishes
from llamasup.http.connection import ClientLeft, Connection
from llamasup.http.framing import Body, Chunked, Counted
from llamasup.http.requests import Request, parse_head, take_head

log = logging.getLogger(__name__)

_TOO_SLOW = "the request took too long to arrive: send it again, all of it at once"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Conversation:
    """One client's requests and their answers, in order."""

    def __init__(
        self, connection: Connection, desk: Desk, guests: Guests[Conversation] | None = None
    ) -> None:
        self.idle = True
        """Is no request being read or answered?"""

        self.idle_since = trio.current_time()
        """When it became idle: when the client connected, or had its last answer."""

        self._guests = Guests[Conversation]() if guests is None else guests
        """All connections. This one counts as resting there while it is idle."""

        self._connection = connection
        self._desk = desk
        self._hold = Hold(desk.bodies.memory, callers.place(connection.peer))
        self._body: IncomingBody | None = None
        self._begun: Request | None = None
        """The request of which at least the head was read."""

        self._wishes: Wishes | None = None
        """What a large body asks for, found while it came."""

        self._life = trio.CancelScope()
        self._exchange: Exchange | None = None
        """The exchange that has begun and not ended, if any."""

        self._broken_off: LlamasupError | None = None

    @property
    def silent(self) -> bool:
        """Is it idle, without anything unread?"""
        return self.idle and not self._connection.has_arrived

    @property
    def answering(self) -> bool:
        """May there be an answer that has begun and not ended?"""
        return self._exchange is not None

    def end_if_silent(self) -> bool:
        """If it is silent, end it without a word, even before it runs. Returns whether it ends."""
        if not self.silent:
            self._guests.wake(self)  # a request has come, and will be read next
            return False
        self._guests.remove(self)
        self._life.cancel()
        return True

    def break_off(self, why: LlamasupError) -> None:
        """End it now, and tell the client why, if its answer still allows that."""
        self._broken_off = why
        self._life.cancel()

    async def run(self) -> None:
        """Read and answer requests until either side ends this, or it is broken off.

        Raises ClientLeft or ReplyCut if the connection must not be closed as if all were well.
        """
        with self._life:
            if not await self._open():
                return
            while await self._serve_one():
                if self._desk.closing:
                    return
        if self._life.cancelled_caught and self._broken_off and not self.idle:
            await self._end(self._broken_off)

    async def _open(self) -> bool:
        """Agree with the client about how to speak. False if that ends the connection."""
        try:
            await self._connection.open(self._desk.settings.head_timeout)
        except LlamasupError as error:
            await self._refuse(error)
            return False
        return True

    async def _serve_one(self) -> bool:
        """Read and answer one request. False if the connection has to end."""
        try:
            return await self._read_and_answer()
        finally:
            if self._body is not None:
                self._body.release()
                self._body = self._wishes = None
            self._hold.release()

    async def _read_and_answer(self) -> bool:
        try:
            request = await self._read()
        except LlamasupError as error:
            await self._refuse(error)
            return False
        if self._desk.closing:
            request.keep_alive = False
        self._exchange = Exchange(request, self._wishes, self._connection, self._desk, self._hold)
        await self._exchange.run()
        self._exchange = None
        if self._connection.inbox:
            # A client that sends a thousand requests at once must not hold up the others.
            await trio.lowlevel.checkpoint()
        return request.keep_alive

    def _rest(self) -> None:
        if not self.idle:  # blank lines are no request
            self.idle = True
            self.idle_since = trio.current_time()
        self._guests.rest(self)

    def _act(self) -> None:
        if self.idle:
            self.idle = False
            self._guests.wake(self)

    async def _read(self) -> Request:
        """Read the next request. Raises a LlamasupError for a bad one."""
        self._begun = None
        head = await self._read_head()
        request, inbox = parse_head(head), self._connection.inbox
        self._begun = request
        is_whole = self._is_whole(request)
        await self._hold.take(len(head) + len(inbox) if is_whole else len(head))
        if not is_whole:
            await self._read_body(request)
        elif size := _length(request.framing):
            request.body = inbox[:size]
            del inbox[:size]
        return request

    async def _hold_more(self, amount: int, patience: trio.CancelScope) -> None:
        """Wait for the memory that this takes. The client is not to blame for that time."""
        left, patience.deadline = patience.deadline - trio.current_time(), math.inf
        await self._hold.take(amount)
        patience.deadline = trio.current_time() + left

    def _is_whole(self, request: Request) -> bool:
        """Has its whole body come already, and is it small? Most are, or have none."""
        longest = min(STEP, self._desk.settings.max_body, len(self._connection.inbox))
        return _length(request.framing) <= longest

    async def _read_head(self) -> bytes:
        """The next head. It may take long to begin, but not to become complete.

        The server ends connections that rest for too long: a deadline for each wait, set and
        taken back, would cost a request 10 µs.
        """
        desk, inbox = self._desk, self._connection.inbox
        while (head := take_head(inbox, desk.settings.max_head)) is None and not inbox:
            self._rest()
            await self._connection.arrival()
        self._act()
        if head is None:
            with trio.move_on_after(desk.settings.head_timeout) as patience:
                while (head := take_head(inbox, desk.settings.max_head)) is None:
                    await self._hold_more(len(inbox) - self._hold.amount, patience)
                    await self._connection.arrival()
            self._hold.release()
        if head is None:
            raise RequestTimeout(_TOO_SLOW)
        return head

    async def _read_body(self, request: Request) -> None:
        connection = self._connection
        framing = request.framing
        limits, reader = self._expectations(request)
        if isinstance(framing, Counted):
            limits.check(framing.left)
        if request.expects_continue and not connection.inbox:
            await connection.send(_CONTINUE)
        body = self._body = IncomingBody(self._desk.bodies, self._hold, reader)
        while True:
            content = take_content(framing, connection.inbox, STEP)
            if isinstance(framing, Chunked):
                limits.check(body.size + len(content))
                check_chunks(framing, body.size)
            arrived = trio.current_time()
            await body.add(content)
            if framing.done:
                break
            limits.extend(trio.current_time() - arrived)
            if connection.inbox:
                await trio.lowlevel.checkpoint()
                continue
            with trio.move_on_at(limits.deadline(body.size, trio.current_time())) as patience:
                await connection.arrival()
            if patience.cancelled_caught:
                raise RequestTimeout(_TOO_SLOW)
        self._wishes = await body.end(request)

    def _expectations(self, request: Request) -> tuple[BodyLimits, Callable[[], Reader] | None]:
        """The limits of a body, and how to make a reader that finds the wishes of a large one.

        Raises InvalidKey for a client whose body is not worth reading.
        """
        settings, now = self._desk.settings, trio.current_time()
        reader = self._desk.router.reader(request)
        if reader is None:
            why = "what is for no model"
            return BodyLimits(LONGEST_ELSEWHERE, why, settings.body_timeout, now), None
        self._desk.door.refuse_strangers(request)
        return BodyLimits(settings.max_body, "server.max_body", settings.body_timeout, now), reader

    async def _end(self, why: LlamasupError) -> None:
        """End the exchange, if one has begun. Raises ReplyCut if nothing more can be said in it."""
        if self._exchange is None:
            await self._refuse(why)
            return
        await self._exchange.break_off(why)
        self._exchange = None
        await self._connection.finish()

    async def _refuse(self, error: LlamasupError) -> None:
        """Answer what was no valid request, and end: nothing tells where the next one begins."""
        request, lines = self._begun, list[bytes]()
        if request is not None:
            request.keep_alive = False
            lines = pages.lines_for_page(request.headers, self._desk.settings)
        await self._connection.send(error_reply(error, request, lines))
        await self._connection.finish()


def _length(framing: Body) -> int:
    """The bytes of a body that have still to come; more than any if that is not known."""
    return framing.left if isinstance(framing, Counted) else sys.maxsize


async def converse(connection: Connection, conversation: Conversation) -> None:
    """Run the conversation, then close its connection in the way that suits how it ended.

    Nothing that a client or an engine does makes this raise. If it is cancelled, everything is
    closed.
    """
    try:
        await conversation.run()
    except ClientLeft:
        pass
    except ReplyCut:
        pass  # the client sees a broken connection
    finally:
        if conversation.answering:
            # After a clean end, an answer that ends with its connection would look whole.
            connection.reset()
        connection.close()
