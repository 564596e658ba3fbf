"""Lets requests in: by the keys that there are, by what each key may do, and by what is left to it.

What it decides is pure, and lies in `access`. Here are the clocks, the state that all conversations
share, and the ear for what answers took.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

import trio

from llamasup.access import rights
from llamasup.access.headers import API_KEY, AUTHORIZATION
from llamasup.access.keyring import Caller, Keyring, demand_use
from llamasup.access.limits import Limits
from llamasup.access.rights import Need
from llamasup.config.in_effect import InEffect
from llamasup.errors import Forbidden, InvalidKey
from llamasup.events import Journal, RequestCancelled, RequestEnded
from llamasup.front import callers
from llamasup.front.routes import Target, ToControl, ToEngine, ToModel
from llamasup.http.requests import Request
from llamasup.models.names import Choice
from llamasup.pool.pool import Pool
from llamasup.pool.work import Work


class Doorkeeper:
    """One for all conversations. Measured: without keys it costs a request 0.2 µs, with them 9."""

    def __init__(self, in_effect: InEffect, journal: Journal, pool: Pool) -> None:
        self._in_effect = in_effect
        self._pool = pool
        self._journal = journal
        self._limits = Limits()
        self._hearing = ExitStack()
        self.renew()

    def renew(self) -> None:
        """Use the configuration that is in effect now."""
        config = self._in_effect.config
        keys = config.keys
        self._ring = Keyring(keys)
        self._limits.keep(keys)
        self._hearing.close()
        if config.pool.fair == "tokens" or any(key.tokens_per_minute for key in keys.values()):
            self._hearing.enter_context(
                self._journal.heard_by(self._charge, RequestEnded, RequestCancelled)
            )

    def refuse_strangers(self, request: Request) -> None:
        """Raise InvalidKey if a request for a model has no valid key. Asked before a large body is
        read."""
        if self._ring:
            self._caller(request)

    def let_in(self, request: Request, goal: Target, peer: str) -> Caller | None:
        """Whose request this is; None for a request that needs no key.

        Raises InvalidKey, and Forbidden for what this client may not do.
        """
        if not self._ring and isinstance(goal, ToModel) and goal.work is Work.GENERATE:
            return None  # as most requests are
        need = _need(request, goal)
        if not self._ring:
            if need is Need.OPERATOR:
                self._demand_this_machine(request, goal, peer)
            return None
        if need is Need.NOTHING:
            return None
        if need is Need.OPERATOR:
            return self._operator(request, goal)
        return self._caller(request)

    def _caller(self, request: Request) -> Caller:
        authorization, api_key = request.header(AUTHORIZATION), request.header(API_KEY)
        return self._ring.caller(authorization, api_key, time.time())

    def _operator(self, request: Request, goal: Target) -> Caller | None:
        """The operator who asks. None if control has still to see whether it is the admin key."""
        asks_control = isinstance(goal, ToControl) and bool(self._in_effect.config.server.admin_key)
        try:
            caller = self._caller(request)
        except InvalidKey:
            if asks_control:
                return None
            raise
        if not caller.key.settings.operator:
            raise Forbidden(
                f'this is for operators, and "{caller.key.name}" is no operator\'s key (one with'
                " operator = true)"
            )
        return caller

    def _demand_this_machine(self, request: Request, goal: Target, peer: str) -> None:
        """Raise Forbidden if another machine wants to change something, and nothing tells whose it
        is. With an admin key, control asks for that."""
        if request.method in (b"GET", b"HEAD") or rights.is_from_here(peer):
            return
        if isinstance(goal, ToControl) and self._in_effect.config.server.admin_key:
            return
        raise Forbidden(
            "without keys, only clients on this machine may change this; its operator can add"
            " a key with operator = true"
        )

    def confirm(self, caller: Caller, choice: Choice) -> None:
        """Raise InvalidKey or ModelForbidden if the key does not allow this (any more): it may have
        been taken away while its request waited."""
        key = self._ring.still(caller.key, time.time())
        demand_use(key.settings, choice.model, choice.name)

    def enter(self, caller: Caller) -> None:
        """This caller's request begins; `leave` ends it. Raises RateLimited; then it does not."""
        self._limits.enter(caller.key, trio.current_time())

    def leave(self, caller: Caller) -> None:
        """A request that has begun is over."""
        self._limits.leave(caller.key)

    def lines(self, caller: Caller) -> list[bytes]:
        """The headers that tell the caller how much is left to its key."""
        return self._limits.lines(caller.key, trio.current_time())

    def _charge(self, event: RequestEnded | RequestCancelled) -> None:
        if event.usage is None:
            return
        tokens, now = event.usage.computed_tokens, trio.current_time()
        self._pool.consumption.add(callers.payer(event.client, event.key), tokens, now)
        if (key := self._ring.named(event.key)) is not None:
            self._limits.charge(key, tokens, now)


def _need(request: Request, goal: Target) -> Need:
    if isinstance(goal, ToControl):
        return rights.need_of_page(goal.target.partition(b"?")[0])
    if isinstance(goal, ToEngine):
        return rights.need_of_engine(request.method, b"/" + goal.path)
    if goal.work is Work.GENERATE:
        return Need.KEY
    return rights.need_of_engine(request.method, goal.target.partition(b"?")[0])
