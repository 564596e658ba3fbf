"""One request and its answer: all that happens to it, step by step.

The steps stand in `_steps` and, for a model, in `_ask_model`, in order: may this web page ask →
where does the request go → who asks, and may he → (for a model) how much is left to him → which
model is meant, and may he use it → can the model do that → what becomes of the params → wait for a
lease → relay; and the last two again if the engine is lost before the client has seen a word.
"""

from __future__ import annotations

import trio
from attrs import evolve

from llamasup.access import pages
from llamasup.access.keyring import Caller, Unknown, discreet
from llamasup.apis.dialects import dialect_at
from llamasup.apis.ollama import Ollama
from llamasup.apis.translation import Residence
from llamasup.endpoints.forwarding import refuse_circle
from llamasup.endpoints.prefix import prefix_of
from llamasup.errors import (
    ChildLost,
    LlamasupError,
    MalformedRequest,
    ModelFileMissing,
    ModelNotFound,
    ModelNotNamed,
)
from llamasup.front import callers, purposes
from llamasup.front.answer import Answer, Seen
from llamasup.front.asking_control import ask_control
from llamasup.front.desk import Desk
from llamasup.front.digests import Digest
from llamasup.front.filters import put_under
from llamasup.front.interpreter import Interpreter, interpreted
from llamasup.front.keepalive import KeptAlive
from llamasup.front.losses import Losses
from llamasup.front.margins import Margins
from llamasup.front.own_replies import preflight_reply, redirection
from llamasup.front.relay import RanOutOfMemory, ReplyCut, relay
from llamasup.front.reporter import Reporter
from llamasup.front.rooms import Hold
from llamasup.front.routes import Target, ToControl, ToEngine, ToModel, to_own
from llamasup.front.way import Way
from llamasup.front.wishes import Wishes
from llamasup.http.connection import Connection
from llamasup.http.requests import EXPECTS, Request
from llamasup.models.names import Choice
from llamasup.pool.pool import Leasing
from llamasup.pool.trail import Trail
from llamasup.pool.work import Work


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
        self._way = Way(request, trio.current_time)
        self._reporter = Reporter(request, connection, self._way, desk.journal, desk.refusals)
        self._answer = Answer(request, [], self._reporter.begins, self._way.lines)
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
        self._reporter.came()
        try:
            await self._respond()
        except BaseException:
            self._reporter.cancelled(self._answer)
            raise
        self._reporter.ended(self._answer)

    async def _respond(self) -> None:
        try:
            await self._steps()
        except LlamasupError as error:
            self._reporter.refused(error)
            if isinstance(error, MalformedRequest):
                self._request.keep_alive = False
            await self._connection.send(self._answer.failure(error))
        except ReplyCut as cut:
            can_be_told = self._answer.seen is Seen.EVENTS
            self._reporter.cut(str(cut), can_be_told)
            if not can_be_told:
                raise
            await self._connection.send(self._answer.failure(ChildLost(f"{cut}; ask again")))

    async def break_off(self, why: LlamasupError) -> None:
        """End the answer, after `run` was cancelled; the connection ends with it.

        Raises ReplyCut if nothing more can be said in the answer.
        """
        if self._answer.seen is Seen.A_PART:
            self._reporter.cut(str(why), told=False)
            raise ReplyCut(str(why))
        await self._connection.send(self._answer.final_failure(why))

    async def _steps(self) -> None:
        if origin := self._request.header(b"origin"):
            self._let_page_in(origin)
            if self._request.method == b"OPTIONS":
                await self._connection.send(preflight_reply(self._request, self._answer.extra))
                return
        goal = self._desk.router.route(self._request, self._wishes)
        self._let_in(goal)
        if isinstance(goal, ToControl):
            await self._ask_control(goal)
        elif self._caller is None:
            await self._ask(goal)
        else:
            await self._ask_counted(self._caller, goal)

    def _let_page_in(self, origin: bytes) -> None:
        """Raise Forbidden for a page that may not use us; else tell the browser that it may."""
        settings = self._desk.settings
        pages.refuse_foreign_pages(self._request.headers, settings)
        self._answer.extra = pages.cors_lines(settings.cors_origins, origin)

    def _let_in(self, goal: Target) -> None:
        """Find out whose request this is, if there are keys. The key itself goes no further.

        Raises InvalidKey and Forbidden.
        """
        caller = self._desk.door.let_in(self._request, goal, self._connection.peer)
        if caller is not None:
            self._caller = caller
            self._reporter.key = caller.key.name
            self._request.secrets = caller.headers

    async def _ask_control(self, goal: ToControl) -> None:
        control, key = self._desk.control, self._reporter.key
        await ask_control(self._connection, self._request, control, goal, self._answer, key)

    async def _ask_counted(self, caller: Caller, goal: ToEngine | ToModel) -> None:
        """Ask, and let the request count for its key. Raises RateLimited."""
        door = self._desk.door
        try:
            door.enter(caller)
        finally:
            self._answer.extra = [*self._answer.extra, *door.lines(caller)]
        try:
            await self._ask(goal)
        finally:
            door.leave(caller)

    async def _ask(self, goal: ToEngine | ToModel) -> None:
        if isinstance(goal, ToEngine):
            await self._ask_engine(goal)
        elif goal.translator is not None:
            await self._ask_through(goal.translator, goal)
        else:
            await self._ask_model(goal)

    async def _ask_engine(self, goal: ToEngine) -> None:
        """Let the child answer whose model the path names. Its pages name others relative to their
        own path, so that has to end with a slash."""
        try:
            choice, path = await self._desk.roster.beginning(goal.path)
        except (ModelNotFound, ModelNotNamed) as error:
            raise self._discreet(error) from None
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
        refuse_circle(self._request, self._desk.pool.outside.fleet.ourselves)
        losses, digest, trail = Losses(self._desk.max_replays), Digest(self._request), Trail()
        try:
            choice = await self._chosen(goal)
            await self._demand_fit(choice.model, goal)
            if choice.filter is not None:
                await put_under(choice.filter, self._asked, self._wishes, goal.work)
            while True:
                leasing = self._lease(choice.model, goal, digest, trail)
                if await self._relay(leasing, goal, choice, losses):
                    return
                self._way.replays += 1
                self._reporter.replayed()
                choice = await self._chosen(goal)
        except ModelFileMissing:
            await self._desk.roster.refresh()  # so that the next request does not find this model
            raise

    async def _chosen(self, goal: ToModel) -> Choice:
        """What the model's name means. Raises ModelForbidden if that is not for this key."""
        try:
            choice = await self._desk.roster.choose(goal.model)
        except (ModelNotFound, ModelNotNamed) as error:
            raise self._discreet(error) from None
        self._way.model = choice.model
        self._confirm(choice)
        return choice

    def _discreet(self, error: Unknown) -> Unknown:
        """The same error, without the names of models that are not for this key."""
        return discreet(self._caller.key.settings, error) if self._caller else error

    def _confirm(self, choice: Choice) -> None:
        """Raise InvalidKey or ModelForbidden if the request's key does not allow this any more."""
        if self._caller is not None:
            self._desk.door.confirm(self._caller, choice)

    async def _demand_fit(self, model: str, goal: ToModel) -> None:
        """Raise ModelMoved if the model is not where the llamasup in front of us believes it to be,
        and ModelUnfit if it cannot do what is asked."""
        if expected := self._request.header(EXPECTS):
            await self._desk.offers.demand(model, expected)
        if (wanted := purposes.wanted_at(goal.target)) is not None:
            purposes.compare(model, await self._desk.pool.purpose(model), wanted)

    async def _relay(
        self, coming: Leasing | KeptAlive, goal: ToModel, choice: Choice, losses: Losses
    ) -> bool:
        """Wait for the lease, and relay. False if the request has to be sent again."""
        self._way.waits()
        async with coming as lease:
            self._way.goes_on(lease.signature)
            self._confirm(choice)
            self._reporter.entered()
            self._prepare_answer(goal)
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

    def _prepare_answer(self, goal: ToModel) -> None:
        """Begin anew with what is remembered of the answer: another engine may have begun it."""
        if goal.work is Work.GENERATE and self._reporter.tells_usage:
            path = goal.target.partition(b"?")[0]
            self._answer.margins = Margins(dialect_at(path), path)
        if self._interpreter is not None:
            self._answer.reply = self._interpreter.reply(goal.model or self._way.model)

    def _lease(
        self, model: str, goal: ToModel, digest: Digest, trail: Trail
    ) -> Leasing | KeptAlive:
        """A lease for this client. A client that asked for a stream gets comments while it
        waits."""
        desk, request, caller = self._desk, self._request, self._caller
        lease = desk.pool.lease(
            model,
            goal.work,
            client=lambda: callers.client(request, self._connection.peer, self._reporter.key),
            priority=callers.priority(request, caller.key.settings.priority if caller else None),
            digest=digest,
            prefix=lambda: prefix_of(request.body),
            trail=trail,
            here=goal.here,
            expected=request.header(EXPECTS) or b"",
        )
        if desk.keepalive is None or not goal.streams:
            return lease
        return KeptAlive(desk.keepalive, lease, self._connection, self._answer)
