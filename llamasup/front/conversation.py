"""What is said on one connection: requests are read one after another, and each is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

import trio
from attrs import evolve

from llamasup.access import pages
from llamasup.config.schema import Server
from llamasup.errors import (
    ChildLost,
    ControlTimeout,
    LlamasupError,
    MalformedRequest,
    ModelFileMissing,
    RequestTimeout,
)
from llamasup.front import callers
from llamasup.front.answer import Opening, Seen
from llamasup.front.bodies import STEP, Bodies, IncomingBody, SmallBody
from llamasup.front.digests import Digest
from llamasup.front.guests import Guests
from llamasup.front.keepalive import Keepalive, KeptAlive
from llamasup.front.limits import LONGEST_ELSEWHERE, Limits, check_chunks, take_content
from llamasup.front.own_replies import error_reply, preflight_reply
from llamasup.front.refusals import Refusals
from llamasup.front.relay import RanOutOfMemory, ReplyCut, Upstream, relay
from llamasup.front.routes import Router, ToControl, ToModel
from llamasup.front.wishes import Reader, Wishes, reader_for
from llamasup.http.connection import ClientLeft, Connection
from llamasup.http.framing import Chunked, Counted
from llamasup.http.requests import CLIENT, Request, parse_head, take_head
from llamasup.logs import cut
from llamasup.pool.pool import Lease, Pool
from llamasup.pool.roster import Roster

log = logging.getLogger(__name__)

_LONGEST_PATH = 200
_PATIENCE_WITH_CONTROL = 60.0
_MOST_LOSSES = 8
"""Also of those that are the doing of others."""

_TOO_SLOW = "the request took too long to arrive"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Desk:
    """What all conversations share: the settings, and whom to ask."""

    def __init__(
        self,
        settings: Server,
        max_replays: int,
        roster: Roster,
        pool: Pool,
        control: Upstream,
        bodies: Bodies,
    ) -> None:
        self.settings = settings
        self.max_replays = max_replays
        self.roster = roster
        self.pool = pool
        self.control = control
        self.bodies = bodies
        self.router = Router(settings.path_prefixes)
        self.keepalive = _keepalive(settings)
        self.refusals = Refusals()
        self.closing = False
        """Every connection ends after the answer that it is at."""

    def adopt(self, settings: Server, max_replays: int) -> None:
        """Go by these from now on. A keepalive that keeps other intervals has to be run."""
        if settings.keepalive_after != self.settings.keepalive_after:
            if self.keepalive is not None:
                self.keepalive.dismiss()
            self.keepalive = _keepalive(settings)
        self.settings = settings
        self.max_replays = max_replays
        self.router = Router(settings.path_prefixes)
        self.bodies.adopt(settings.body_memory)


def _keepalive(settings: Server) -> Keepalive | None:
    return Keepalive(settings.keepalive_after) if settings.keepalive_after else None


class Conversation:
    """One client's requests and their answers, in order."""

    def __init__(
        self, connection: Connection, desk: Desk, guests: Guests[Conversation] | None = None
    ) -> None:
        self.idle = True
        """Nothing of a request has come, and none is being answered."""

        self.idle_since = trio.current_time()
        """When it came, or its last answer had been given."""

        self._guests = Guests[Conversation]() if guests is None else guests
        """Among whom it rests while it is idle."""

        self.answering = False
        """An answer may have begun, and has not ended."""

        self._connection = connection
        self._desk = desk
        self._body: IncomingBody | SmallBody | None = None
        self._wishes: Wishes | None = None
        """What the body asks for, where it was looked through as it came."""

        self._course = trio.CancelScope()
        self._opening: Opening | None = None
        """Of the answer that it is at, or was last."""

        self._broken_off: LlamasupError | None = None

    @property
    def silent(self) -> bool:
        """It is idle, and nothing has come that was not read yet."""
        return self.idle and not self._connection.has_arrived

    def end_if_silent(self) -> bool:
        """End now, without a word, if it is silent; also before it runs. Does it?"""
        if not self.silent:
            self._guests.act(self)  # its request has come, though nobody read it yet
            return False
        self._guests.go(self)
        self._course.cancel()
        return True

    def break_off(self, why: LlamasupError) -> None:
        """End now, whatever it is at, and tell the client why as far as its answer allows it."""
        self._broken_off = why
        self._course.cancel()

    async def run(self) -> None:
        """Talk until either side has had enough, or it is dismissed or broken off.

        Raises ClientLeft or ReplyCut where the connection is not to be ended politely.
        """
        with self._course:
            while await self._exchange():
                if self._desk.closing:
                    return
        if self._course.cancelled_caught and self._broken_off and not self.idle:
            await self._end(self._broken_off)

    async def _exchange(self) -> bool:
        """Read and answer one request. False if the connection shall end."""
        try:
            return await self._read_and_answer()
        finally:
            if self._body is not None:
                self._body.release()
                self._body = self._wishes = None

    async def _read_and_answer(self) -> bool:
        try:
            request = await self._read()
        except LlamasupError as error:
            await self._refuse(error)
            return False
        if self._desk.closing:
            request.keep_alive = False
        self.answering = True
        await self._answer(request)
        self.answering = False
        if self._connection.inbox:
            # Who sends a thousand requests at once shall not hold up the others.
            await trio.lowlevel.checkpoint()
        return request.keep_alive

    def _rest(self) -> None:
        self.idle = True
        self.idle_since = trio.current_time()
        self._guests.rest(self)

    def _act(self) -> None:
        if self.idle:
            self.idle = False
            self._guests.act(self)

    async def _read(self) -> Request:
        """The next request. Raises a LlamasupError for a bad one."""
        request = parse_head(await self._read_head())
        if not request.framing.done and not self._take_small_body(request):
            await self._read_body(request)
        return request

    async def _read_head(self) -> bytes:
        """The next head. It may be long in coming; what has begun may not.

        That it rests too long is for the front to see: a deadline for each wait, set and taken
        back, costs a request 10 µs.
        """
        desk, inbox = self._desk, self._connection.inbox
        while (head := take_head(inbox, desk.settings.max_head)) is None and not inbox:
            self._rest()
            await self._connection.arrival()
        self._act()
        if head is None:
            with trio.move_on_after(desk.settings.head_timeout):
                while (head := take_head(inbox, desk.settings.max_head)) is None:
                    await self._connection.arrival()
        if head is None:
            raise RequestTimeout(_TOO_SLOW)
        return head

    def _take_small_body(self, request: Request) -> bool:
        """Take a body that came whole, in one piece with its head or soon after, as most do."""
        framing, inbox = request.framing, self._connection.inbox
        if not isinstance(framing, Counted):
            return False
        size = framing.left
        if size > len(inbox) or size > min(STEP, self._desk.settings.max_body):
            return False
        self._body = SmallBody.of(self._desk.bodies, callers.place(self._connection.peer), size)
        if self._body is None:
            return False
        request.body = inbox[:size]
        del inbox[:size]
        return True

    async def _read_body(self, request: Request) -> None:
        connection = self._connection
        framing = request.framing
        limits, reader = self._expectations(request)
        if isinstance(framing, Counted):
            limits.check(framing.left)
        if request.expects_continue and not connection.inbox:
            await connection.send(_CONTINUE)
        place = callers.place(connection.peer)
        body = self._body = IncomingBody(self._desk.bodies, place, reader)
        while True:
            content = take_content(framing, connection.inbox, STEP)
            if isinstance(framing, Chunked):
                limits.check(body.size + len(content))
                check_chunks(framing, body.size)
            arrived = trio.current_time()
            await body.add(content)
            if framing.done:
                break
            limits.held_up(trio.current_time() - arrived)
            if connection.inbox:
                await trio.lowlevel.checkpoint()
                continue
            with trio.move_on_at(limits.deadline(body.size, trio.current_time())) as patience:
                await connection.arrival()
            if patience.cancelled_caught:
                raise RequestTimeout(_TOO_SLOW)
        self._wishes = await body.end(request)

    def _expectations(self, request: Request) -> tuple[Limits, Callable[[], Reader] | None]:
        """How a body may come, and who looks it through if it is a large one."""
        settings, now = self._desk.settings, trio.current_time()
        if not self._desk.router.is_for_model(request):
            why = "what is for no model"
            return Limits(LONGEST_ELSEWHERE, why, settings.body_timeout, now), None
        content_type = request.header(b"content-type") or b""
        limits = Limits(settings.max_body, "server.max_body", settings.body_timeout, now)
        return limits, lambda: reader_for(content_type)

    async def _answer(self, request: Request) -> None:
        opening = self._opening = Opening(request, [])
        try:
            if origin := request.header(b"origin"):
                settings = self._desk.settings
                pages.refuse_foreign_pages(request.headers, settings)
                extra = pages.cors_lines(settings.cors_origins, origin)
                if request.method == b"OPTIONS":
                    await self._connection.send(preflight_reply(request, extra))
                    return
                opening = self._opening = Opening(request, extra)
            await self._forward(request, opening)
        except LlamasupError as error:
            self._tell(request, error)
            if isinstance(error, MalformedRequest):
                request.keep_alive = False
            await self._connection.send(opening.failure(error))
        except ReplyCut as cut:
            if opening.seen is not Seen.EVENTS:
                raise
            log.warning("a stream was cut, and ended with an error event: %s", cut)
            await self._connection.send(opening.failure(ChildLost(str(cut))))

    async def _forward(self, request: Request, opening: Opening) -> None:
        goal = self._desk.router.route(request, self._wishes)
        if isinstance(goal, ToControl):
            await self._ask_control(request, goal, opening)
            return
        try:
            await self._ask_model(request, goal, opening)
        except ModelFileMissing:
            await self._desk.roster.refresh()  # the next one to ask for it shall know
            raise

    async def _ask_control(self, request: Request, goal: ToControl, opening: Opening) -> None:
        """Have control answer, within a limit of time that no answer of its needs."""
        others = (header for header in request.headers if header[0] != CLIENT)
        headers = [*others, (CLIENT, self._connection.peer.encode())]
        # One that is no POST would not be read, and Hypercorn hangs in its reply then.
        body = request.body if request.method == b"POST" else b""
        request = evolve(request, headers=headers, body=body)
        with trio.move_on_after(_PATIENCE_WITH_CONTROL):
            await relay(self._connection, request, self._desk.control, goal.target, opening)
            return
        if opening.seen is not Seen.NOTHING:
            raise ReplyCut("control took too long to answer")
        raise ControlTimeout("llamasup took too long to answer this itself")

    async def _ask_model(self, request: Request, goal: ToModel, opening: Opening) -> None:
        """Have a child answer; if it fails before the client has seen a byte, the next one."""
        desk = self._desk
        losses: list[Callable[[], bool]] = []
        digest = Digest(request)
        while True:
            model = await desk.roster.choose(goal.model)
            lost: ChildLost | None = None
            async with self._lease(model, goal, request, opening, digest) as lease:
                try:
                    await relay(self._connection, request, lease, goal.target, opening)
                    return
                except RanOutOfMemory as error:
                    # Sent again or not: whoever comes next shall find a child that needs less.
                    steps_down = lease.out_of_memory(str(error))
                    if not steps_down or _counted(losses) >= desk.max_replays:
                        raise lease.exhausted(str(error)) from error
                    losses.append(lambda: False)
                except ChildLost as error:
                    lease.broke_off()
                    lost = error
                except ReplyCut:
                    lease.broke_off()
                    raise
            if lost is not None:
                losses.append(await lease.outcome())
                if _counted(losses) > desk.max_replays or len(losses) > _MOST_LOSSES:
                    raise lost
            log.info("%s %s is sent again", *_said(request))

    def _lease(
        self, model: str, goal: ToModel, request: Request, opening: Opening, digest: Digest
    ) -> Lease | KeptAlive:
        """A lease in this client's name; who waits for it may be told how long it will take."""
        desk = self._desk
        lease = desk.pool.lease(
            model,
            goal.work,
            client=lambda: callers.client(request, self._connection.peer),
            priority=callers.priority(request),
            digest=digest,
        )
        if desk.keepalive is None or not goal.streams:
            return lease
        return KeptAlive(desk.keepalive, lease, self._connection, opening)

    def _tell(self, request: Request, error: LlamasupError) -> None:
        """In the log, unless this client is refused all the time."""
        try:
            peer = self._connection.peer
        except ClientLeft:
            return  # and will not see it either
        now, refusals = trio.current_time(), self._desk.refusals
        if refusals.told(peer, now):
            log.info("%s %s: %d %s", *_said(request), error.status, error)
            for client, number in refusals.untold(peer, now):
                log.info("%d more requests from %s were refused", number, client)

    async def _end(self, why: LlamasupError) -> None:
        """End what was begun. Raises ReplyCut where nothing more can be said in an answer."""
        if not self.answering or self._opening is None:
            await self._refuse(why)
            return
        if self._opening.seen is Seen.A_PART:
            raise ReplyCut(str(why))
        await self._connection.send(self._opening.last_words(why))
        self.answering = False
        await self._connection.finish()

    async def _refuse(self, error: LlamasupError, extra: Iterable[bytes] = ()) -> None:
        """Answer what was no request, and end: what follows it cannot be told apart."""
        await self._connection.send(error_reply(error, None, list(extra)))
        await self._connection.finish()


def _counted(losses: Iterable[Callable[[], bool]]) -> int:
    """A loss does not count that was the doing of another request."""
    return sum(not is_anothers() for is_anothers in losses)


def _said(request: Request) -> tuple[str, str]:
    """For the log. Not with the query: some clients put their key there."""
    path = request.target.partition(b"?")[0].decode("latin-1")
    return cut(request.method.decode("latin-1"), 20), cut(path, _LONGEST_PATH)


async def converse(connection: Connection, conversation: Conversation) -> None:
    """The conversation, and the end of its connection that suits how it ended.

    Never raises for what one client or one engine does; cancelled, everything is closed.
    """
    try:
        await conversation.run()
    except ClientLeft:
        pass
    except ReplyCut as cut:
        log.warning("an answer was cut: %s", cut)
    finally:
        if conversation.answering:
            # Where an answer ends with its connection, a clean end would make it look whole.
            connection.reset()
        connection.close()
