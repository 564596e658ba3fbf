"""One request and its answer: all that happens to it, step by step.

The steps stand in `_steps`, in order: may this web page ask → where does the request go → who asks,
and may he → (for a model) how much is left to him → which model is meant, and may he use it → what
becomes of the params → wait for a lease → relay; and the last two again if the engine is lost
before the client has seen a word.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from attrs import evolve

from llamasup.access import pages
from llamasup.access.keyring import Caller
from llamasup.apis.dialects import dialect_at
from llamasup.apis.ollama import Ollama
from llamasup.apis.translation import Residence
from llamasup.apis.usage import usage_at_least, usage_of_answer, usage_of_ends, usage_of_stream
from llamasup.errors import (
    ChildLost,
    ControlTimeout,
    LlamasupError,
    MalformedRequest,
    ModelFileMissing,
)
from llamasup.events import (
    AnswerCut,
    Event,
    FirstByte,
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
from llamasup.front import callers, purposes
from llamasup.front.answer import Answer, Seen
from llamasup.front.desk import Desk
from llamasup.front.digests import Digest
from llamasup.front.filters import put_under
from llamasup.front.interpreter import Interpreter, interpreted
from llamasup.front.keepalive import KeptAlive
from llamasup.front.losses import Losses
from llamasup.front.margins import Margins
from llamasup.front.own_replies import preflight_reply, redirection
from llamasup.front.relay import RanOutOfMemory, ReplyCut, relay
from llamasup.front.rooms import Hold
from llamasup.front.routes import Target, ToControl, ToEngine, ToModel, to_own
from llamasup.front.way import Way
from llamasup.front.wishes import Wishes
from llamasup.http.connection import ClientLeft, Connection
from llamasup.http.requests import CLIENT, EXPECTS, KEY, Request
from llamasup.logs import cut
from llamasup.models.names import Choice
from llamasup.pool.beginning import beginning
from llamasup.pool.pool import Leasing
from llamasup.pool.trail import Trail
from llamasup.pool.work import Work

_LONGEST_PATH = 200
_PATIENCE_WITH_CONTROL = 60.0
_COURSE = (RequestCame, RequestEntered, FirstByte, RequestEnded, RequestCancelled)
"""The events of every request. If nothing listens to them, they cost 0.3 µs instead of 6."""


class Exchange:
    """One request, from when it was read until the last byte of its answer."""

    def __init__(
        self,
        request: Request,
        wishes: Wishes | None,
        connection: Connection,
        desk: Desk,
        hold: Hold,
    ) -> None:
        """For a large body, `wishes` are known already. What the answer holds joins the `hold`."""
        self._request = request
        self._wishes = wishes
        self._connection = connection
        self._desk = desk
        self._is_followed = desk.journal.hears(*_COURSE)
        self._way = Way(request, trio.current_time)
        self._answer = Answer(request, [], self._begins, self._way.lines)
        self._answer.hold = hold
        self._asked = request
        """The request as an engine gets it."""

        self._interpreter: Interpreter | None = None
        """Who put it into the engine's words, if that was necessary."""

        self._caller: Caller | None = None
        """Who asks, if there are keys."""

    async def run(self) -> None:
        """Answer the request, or say what is wrong with it.

        Raises ClientLeft, and ReplyCut if an answer ended in the middle. If this is cancelled, the
        answer stays as it is; see `break_off`.
        """
        if self._is_followed:
            self._tell(RequestCame(self._id, self._connection.peer, *self._named))
        try:
            await self._respond()
        except BaseException:
            if self._is_followed:
                is_waiting = self._answer.seen is Seen.NOTHING
                phase = Phase.WAITING if is_waiting else Phase.ANSWERING
                usage, way = self._usage or self._usage_at_least, self._way
                who = self._connection.peer, self._key
                self._tell(RequestCancelled(self._id, way.model, phase, way.age, usage, *who))
            raise
        if self._is_followed:
            usage = self._usage or (self._usage_at_least if self._answer.is_stream else None)
            who = self._connection.peer, self._key
            self._tell(RequestEnded(self._id, self._way.model, self._way.age, usage, *who))

    async def _respond(self) -> None:
        try:
            await self._steps()
        except LlamasupError as error:
            self._tell_of_refusal(error)
            if isinstance(error, MalformedRequest):
                self._request.keep_alive = False
            await self._connection.send(self._answer.failure(error))
        except ReplyCut as cut:
            can_be_told = self._answer.seen is Seen.EVENTS
            self._tell(AnswerCut(self._id, str(cut), can_be_told))
            if not can_be_told:
                raise
            await self._connection.send(self._answer.failure(ChildLost(f"{cut}; ask again")))

    async def break_off(self, why: LlamasupError) -> None:
        """End the answer, after `run` was cancelled; the connection ends with it.

        Raises ReplyCut if nothing more can be said in the answer.
        """
        if self._answer.seen is Seen.A_PART:
            self._tell(AnswerCut(self._id, str(why), told=False))
            raise ReplyCut(str(why))
        await self._connection.send(self._answer.final_failure(why))

    async def _steps(self) -> None:
        if origin := self._request.header(b"origin"):
            self._let_page_in(origin)
            if self._request.method == b"OPTIONS":
                await self._connection.send(preflight_reply(self._request, self._answer.extra))
                return
        goal = self._desk.router.route(self._request, self._wishes)
        caller = self._let_in(goal)
        if isinstance(goal, ToControl):
            await self._ask_control(goal)
        elif caller is None:
            await self._ask(goal)
        else:
            with self._counted(caller):
                await self._ask(goal)

    async def _ask(self, goal: ToEngine | ToModel) -> None:
        if isinstance(goal, ToEngine):
            await self._ask_engine(goal)
        elif goal.translator is None:
            await self._ask_model(goal)
        else:
            await self._ask_through(goal.translator, goal)

    def _let_in(self, goal: Target) -> Caller | None:
        """Whose request this is, if there are keys. His key goes no further than to here."""
        door, request = self._desk.door, self._request
        caller = self._caller = door.let_in(request, goal, self._connection.peer)
        if caller is not None:
            request.secrets = caller.headers
        return caller

    @contextmanager
    def _counted(self, caller: Caller) -> Iterator[None]:
        """A block in which the request counts for its key, and tells what is left to that."""
        door = self._desk.door
        try:
            door.enter(caller)
        finally:
            self._answer.extra = [*self._answer.extra, *door.lines(caller)]
        try:
            yield
        finally:
            door.leave(caller)

    def _let_page_in(self, origin: bytes) -> None:
        """Raise Forbidden for a page that may not use us; else tell the browser that it may."""
        settings = self._desk.settings
        pages.refuse_foreign_pages(self._request.headers, settings)
        self._answer.extra = pages.cors_lines(settings.cors_origins, origin)

    async def _ask_control(self, goal: ToControl) -> None:
        """Let control answer, within a time that is long enough for all its answers."""
        request = self._request
        others = (header for header in request.headers if header[0] not in (CLIENT, KEY))
        headers = [*others, (CLIENT, self._connection.peer.encode())]
        if self._caller is not None:
            headers.append((KEY, self._key.encode()))
        # Only a POST's body is read, and Hypercorn hangs in its reply if a body is not read.
        body = request.body if request.method == b"POST" else b""
        request = evolve(request, headers=headers, body=body)
        with trio.move_on_after(math.inf if goal.lasts else _PATIENCE_WITH_CONTROL):
            await relay(self._connection, request, self._desk.control, goal.target, self._answer)
            return
        if self._answer.seen is not Seen.NOTHING:
            raise ReplyCut("control took too long to answer")
        raise ControlTimeout("llamasup took too long to answer this itself; ask again")

    async def _ask_engine(self, goal: ToEngine) -> None:
        """Let the child answer whose model the path names. Its pages name others relative to their
        own path, so that has to end with a slash."""
        choice, path = await self._desk.roster.beginning(goal.path)
        if path:
            await self._ask_model(to_own(self._request.method, choice.name, path, goal.query))
            return
        where = b"./" + goal.path.rpartition(b"/")[2] + b"/" + goal.query
        await self._connection.send(redirection(self._request, where, self._answer.extra))

    async def _ask_through(self, translator: Ollama, goal: ToModel) -> None:
        """Let a child answer, in an API that no engine speaks."""
        desk, request = self._desk, self._request
        memory, place = desk.bodies.memory, callers.place(self._connection.peer)
        path = goal.target.partition(b"?")[0]
        async with interpreted(request, translator, path, memory, place) as interpreter:
            meant = interpreter.meant
            if isinstance(meant, Residence):
                await self._settle(meant, goal, interpreter)
                return
            self._interpreter, self._asked = interpreter, interpreter.asked(meant)
            self._wishes = None
            await self._ask_model(evolve(goal, target=meant.target, streams=meant.streams))
        if meant.unloads:
            desk.pool.let_go(self._way.model)

    async def _settle(self, residence: Residence, goal: ToModel, interpreter: Interpreter) -> None:
        """Have the model loaded, or unloaded, as its client wants it, and say so."""
        choice = await self._chosen(goal)
        model = choice.model
        if residence.loads:
            digest = Digest(self._request)
            async with self._lease(model, evolve(goal, work=Work.ASK), digest, Trail()):
                pass
        else:
            self._desk.pool.let_go(model)
        document = residence.document(interpreter.moment(goal.model or choice.name))
        await self._connection.send(self._answer.document(document))

    async def _ask_model(self, goal: ToModel) -> None:
        """Let a child answer, or the next one if it fails before the client has seen a word."""
        roster, losses = self._desk.roster, Losses(self._desk.max_replays)
        self._desk.pool.outside.refuse_circle(self._request)
        digest, trail = Digest(self._request), Trail()
        try:
            choice = await self._chosen(goal)
            if expected := self._request.header(EXPECTS):
                await self._desk.offers.demand(choice.model, expected)
            if (wanted := purposes.wanted_at(goal.target)) is not None:
                purposes.compare(choice.model, await self._desk.pool.purpose(choice.model), wanted)
            if choice.filter is not None:
                await put_under(choice.filter, self._asked, self._wishes, goal.work)
            while True:
                model = choice.model
                leasing = self._lease(model, goal, digest, trail)
                if await self._relay(leasing, goal, choice, losses):
                    return
                self._way.replays += 1
                self._tell(RequestReplayed(self._id, model, *self._named))
                choice = await self._chosen(goal)
        except ModelFileMissing:
            await roster.refresh()  # so that the next request does not find this model
            raise

    async def _chosen(self, goal: ToModel) -> Choice:
        """What the model's name means. Raises ModelForbidden if that is not for this key."""
        choice = await self._desk.roster.choose(goal.model)
        self._way.model = choice.model
        self._confirm(choice)
        return choice

    def _confirm(self, choice: Choice) -> None:
        """Raise InvalidKey or ModelForbidden if the request's key does not allow this any more."""
        if self._caller is not None:
            self._desk.door.confirm(self._caller, choice)

    async def _relay(
        self, coming: Leasing | KeptAlive, goal: ToModel, choice: Choice, losses: Losses
    ) -> bool:
        """Wait for the lease, and relay. False if the request has to be sent again."""
        self._way.waits()
        async with coming as lease:
            self._way.goes_on(lease.signature)
            self._confirm(choice)
            if self._is_followed:
                self._tell(RequestEntered(self._id, self._way.model, self._way.age))
                self._answer.margins = Margins() if goal.work is Work.GENERATE else None
            if self._interpreter is not None:
                self._answer.reply = self._interpreter.reply(goal.model or self._way.model)
            try:
                await relay(self._connection, self._asked, lease, goal.target, self._answer)
                return True
            except RanOutOfMemory as error:
                # The child is told even if this request is not sent again: the next request should
                # find a child that needs less.
                if not lease.note_out_of_memory(str(error)) or not losses.may_grow:
                    raise lease.exhausted(str(error)) from error
                losses.add(lambda: False)
                return False
            except ChildLost as error:
                lease.broke_off()
                lost = error
            except ReplyCut:
                lease.broke_off()
                raise
        losses.add(await lease.outcome())
        if losses.are_too_many:
            raise lost
        return False

    def _lease(
        self, model: str, goal: ToModel, digest: Digest, trail: Trail
    ) -> Leasing | KeptAlive:
        """A lease for this client. A client that asked for a stream gets comments while it
        waits."""
        desk, request, caller = self._desk, self._request, self._caller
        lease = desk.pool.lease(
            model,
            goal.work,
            client=lambda: callers.client(request, self._connection.peer, self._key),
            priority=callers.priority(request, caller.key.settings.priority if caller else None),
            digest=digest,
            prefix=lambda: beginning(request.body),
            trail=trail,
        )
        if desk.keepalive is None or not goal.streams:
            return lease
        return KeptAlive(desk.keepalive, lease, self._connection, self._answer)

    def _tell_of_refusal(self, error: LlamasupError) -> None:
        """Tell the journal, unless this client is refused all the time."""
        try:
            peer = self._connection.peer
        except ClientLeft:
            return  # so the error is not seen either
        now, refusals = trio.current_time(), self._desk.refusals
        if refusals.told(peer, now):
            why = str(error)
            self._tell(RequestRefused(self._id, peer, *self._named, error.status, error.code, why))
            for client, number in refusals.untold(peer, now):
                self._tell(MoreRefusals(client, number))

    def _begins(self) -> None:
        if self._is_followed:
            self._tell(FirstByte(self._id, self._way.model, self._way.age))

    def _tell(self, event: Event) -> None:
        self._desk.journal.tell(event)

    @property
    def _id(self) -> str:
        return self._request.id.decode()

    @property
    def _usage(self) -> Usage | None:
        margins = self._answer.margins
        if margins is None:
            return None
        target = self._interpreter.target if self._interpreter else self._request.target
        dialect = dialect_at(target.partition(b"?")[0])
        if self._answer.is_stream:
            return usage_of_stream(dialect, margins.content)
        read = usage_of_answer if margins.is_whole else usage_of_ends
        return read(dialect, margins.content)

    @property
    def _usage_at_least(self) -> Usage | None:
        """What an unfinished answer took, as far as that is known."""
        margins = self._answer.margins
        if margins is None:
            return None
        return usage_at_least(len(self._request.body), margins.events)

    @property
    def _key(self) -> str:
        return self._caller.key.name if self._caller is not None else ""

    @property
    def _named(self) -> tuple[str, str]:
        """The method, and the path without its query: some clients put their key there."""
        path = self._request.target.partition(b"?")[0].decode("latin-1")
        return cut(self._request.method.decode("latin-1"), 20), cut(path, _LONGEST_PATH)
