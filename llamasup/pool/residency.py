"""Carries out what `admission` decides: which models get a place in memory, and which are unloaded.

A keeper asks for a place before each start, and its child has it until the memory is back. After
every change admission is asked again, and only its latest answer counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import trio
from attrs import evolve

from llamasup.children.child import Child
from llamasup.children.landlord import Tenant
from llamasup.children.needs import Needed
from llamasup.config.in_effect import InEffect
from llamasup.config.schema import GroupSettings
from llamasup.engine.failures import Kind
from llamasup.errors import NoRoom, NotAdmitted
from llamasup.events import Evicted, Journal, Reason
from llamasup.memory.gauge import Gauge
from llamasup.memory.host import anonymous_memory
from llamasup.memory.listing import server_of
from llamasup.memory.readings import HOST, Device
from llamasup.memory.room import Amounts, Room, limit, members, spread, with_unions
from llamasup.pool.admission import (
    Claim,
    Decision,
    Drain,
    Evict,
    Group,
    Load,
    Refuse,
    Resident,
    State,
    Wait,
    World,
    decide,
    dispensable,
    forecast,
    meets,
    surplus,
    unload_times,
)
from llamasup.pool.budgets import budgets, host_is_measured, taken_by_others
from llamasup.pool.gate import Gate
from llamasup.states import ChildState

_RETURN_PATIENCE = 5.0
_RETURN_PAUSE = 0.02
_RETURNED_PART = 0.8
"""The part of what a child should have held on a device that has to be back: needs are not
exact."""


class Place:
    """The memory that one child may hold, from before its start until all of it is back."""

    def __init__(
        self, gate: Gate, needed: Needed, residency: Residency, holds: Amounts | None = None
    ) -> None:
        self.gate = gate
        self.needed = needed
        self.holds = needed.amounts if holds is None else holds
        """The need, device by device, as the engine will spread it now."""

        self._residency = residency
        self._child: Child | None = None
        self._given_at = trio.current_time()
        self.held_since = 0.0
        self.was_ready = False
        """Was the child ready at any time?"""

        self.gone = trio.Event()
        self._load_seconds = 0.0

    async def __aenter__(self) -> Place:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._residency.take_back(self)

    @property
    def was_spread(self) -> bool:
        """Did the need leave open how it is spread over devices?"""
        return self.holds.keys() != self.needed.amounts.keys()

    def occupy(self, child: Child) -> None:
        """The place is for this child."""
        self._child = child

    def ready(self) -> None:
        """The child is ready. Its waiting requests enter before another model may take its place.

        If no request waits, the child idles from now on.
        """
        self.was_ready = True
        self._load_seconds = trio.current_time() - self._given_at
        self.gate.admit()
        self._residency.reconsider()
        self._residency.note_idle(self.gate)

    @property
    def resident(self) -> Resident:
        """The place as admission sees it."""
        child, plan = self._child, self.gate.keeper.plan
        return Resident(
            plan.model,
            self.holds,
            self.state,
            self.held_since,
            in_flight=child.users if child else 0,
            ready_at=child.ready_at if child else 0.0,
            last_used=child.last_used if child else 0.0,
            load_seconds=self._load_seconds,
            idle_unload=plan.idle_unload,
            pinned=not plan.settings.unloadable,
        )

    @property
    def state(self) -> State:
        """What the model does with this memory."""
        state = ChildState.STARTING if self._child is None else self._child.state
        if state is ChildState.STARTING:
            return State.LOADING
        if state is ChildState.READY:
            return State.DRAINING if self.gate.held else State.READY
        return State.STOPPING

    @property
    def is_cut_off(self) -> bool:
        """Is an RPC server gone that the child was connected to? Nobody says what is free there."""
        cause = self._child.cause if self._child else None
        return cause is not None and cause.kind is Kind.REMOTE

    @property
    def anonymous_memory(self) -> int:
        """What the child really holds of the host's memory, besides files."""
        return anonymous_memory(self._child.pid) if self._child and self._child.pid else 0


class _Request:
    """A keeper's wish for a place."""

    def __init__(self, gate: Gate, needed: Needed) -> None:
        self.gate = gate
        self.needed = needed
        self.decided = trio.Event()
        self.place: Place | None = None
        self.refused: Refuse | None = None
        self._since = trio.current_time()

    @property
    def claim(self) -> Claim:
        """The wish as admission sees it."""
        since = self._since if self.gate.shut_out_since is None else self.gate.shut_out_since
        return _claim(self.gate.keeper.model, self.needed, since)


class Residency:
    """Which models are in memory. `run` is its clock."""

    def __init__(
        self,
        in_effect: InEffect,
        gates: Mapping[str, Gate],
        gauge: Gauge,
        journal: Journal,
    ) -> None:
        self.places: dict[str, Place] = {}
        self._in_effect = in_effect
        self._gates = gates
        self._gauge = gauge
        self._journal = journal
        self._requests: dict[str, _Request] = {}
        self._devices: Sequence[Device] = ()
        self._taken: Amounts = {}
        self._nap = trio.CancelScope()

    def wake(self) -> None:
        """Look at everything again: a new configuration is in effect."""
        self._nap.cancel()

    async def run(self) -> None:
        """Unload models that have idled long enough, and ask admission when a turn is over."""
        while True:
            with trio.CancelScope() as self._nap:
                self.reconsider()
                self._unload_idle()
                await trio.sleep_forever()
            await self.measure()

    async def room(self, keeper: Tenant) -> Room:
        """What the keeper's next child may take: what is free, and what other models could free."""
        await keeper.plan.look_at_devices()
        await self.measure()
        return self.room_beside_others(keeper.model)

    def room_beside_others(self, model: str) -> Room:
        """The same, by the last measurement, for a model that may have no keeper."""
        others = [place for other, place in self.places.items() if other != model]
        staying = [place for place in others if place.state is not State.STOPPING]
        pinned = [place for place in staying if place.resident.pinned]
        return Room(
            free=_left(self._budgets, _held(staying)), most=_left(self._budgets, _held(pinned))
        )

    def forecast(self, model: str, needed: Needed) -> Decision:
        """What it would take to load this model, by the last measurement."""
        now = trio.current_time()
        world = self._world([_claim(model, needed, now)])
        return forecast(world, world.claims[0], now)

    async def place(self, keeper: Tenant, needed: Needed) -> Place:
        """Wait for a place for the keeper's next child. Raises NotAdmitted.

        If this is cancelled, the keeper holds nothing, and no model is unloaded for it any more.
        """
        await trio.lowlevel.checkpoint_if_cancelled()  # before a model is unloaded for it
        model = keeper.model
        self._requests[model] = request = _Request(self._gates[model], needed)
        try:
            self.reconsider()
            await request.decided.wait()
        except BaseException:
            if request.place:
                del self.places[model]
                self._note_occupied_servers()
            self._requests.pop(model, None)
            self.reconsider()
            raise
        if request.place is None:
            assert request.refused is not None  # there is no third answer
            raise _refusal(model, request.refused)
        return request.place

    def dispensable(self, keeper: Tenant, needed: Needed) -> Sequence[str]:
        """The models that could be unloaded for the keeper's child, after those that end anyway."""
        now = trio.current_time()
        claim = Claim(keeper.model, needed.amounts, now)
        # A model with waiting requests will not be idle any more once these are let in.
        return [
            model
            for model in dispensable(self._world([]), claim, now)
            if not self._gates[model].waiting or self.places[model].state is State.STOPPING
        ]

    async def unload(self, victims: Collection[str]) -> None:
        """Unload these models. Returns when their memory is back, or does not seem to come back.

        If this is cancelled, they are unloaded all the same.
        """
        places = [self.places[model] for model in victims if model in self.places]
        for place in places:
            place.gate.keeper.unload()
        for place in places:
            if place.state is State.STOPPING:
                await place.gone.wait()

    def crowds(self, keeper: Tenant, needed: Needed) -> bool:
        """Do other models hold memory of the devices that the keeper's child uses?"""
        return any(
            meets(place.holds, needed.amounts)
            for model, place in self.places.items()
            if model != keeper.model
        )

    async def take_back(self, place: Place) -> None:
        """The place's child is gone. Returns when the memory is back, or does not seem to come
        back.

        If this is cancelled, the memory counts as back.
        """
        try:
            await self._until_returned(place)
        finally:
            model = place.gate.keeper.model
            del self.places[model]
            self._note_occupied_servers()
            place.gone.set()
            place.gate.hold(False)
            self.reconsider()
            if place.was_ready:
                self._tell_of_room(model)

    def _tell_of_room(self, gone: str) -> None:
        """Tell the other models that there is room now. This is done only after a child that was
        ready: otherwise two models that fail to start would wake each other for ever."""
        for model, gate in self._gates.items():
            if model != gone:
                gate.keeper.room_appeared()

    def note_idle(self, gate: Gate) -> None:
        """This gate's model has no requests now."""
        if self._requests or 0 < self._in_effect.config.pool.max_loaded_models < len(self.places):
            self.reconsider()
        if idle_unload := gate.keeper.plan.idle_unload:
            self._wake_at(trio.current_time() + idle_unload)

    def let_go(self, model: str) -> None:
        """Unload this model if it idles, and may be unloaded."""
        place = self.places.get(model)
        if place is None or place.gate.waiting:
            return
        resident = place.resident
        if resident.state is State.READY and not resident.in_flight and not resident.pinned:
            self._journal.tell(Evicted(model, Reason.CLIENT))
            place.gate.keeper.unload()

    def reconsider(self) -> None:
        """Something has changed: ask admission, and carry out what it says."""
        claims = self._claims()
        held: set[str] = set()
        if not claims:
            self._unload_surplus()
        else:
            for model, decision in decide(self._world(claims), trio.current_time()).items():
                match decision:
                    case Load():
                        if self._give_place(model).was_spread:
                            # The other decisions did not know how this model would be spread.
                            self.reconsider()
                            return
                    case Evict(victims):
                        self._evict(victims, model)
                    case Drain():
                        held.update(decision.held)
                    case Wait(until):
                        self._wake_at(until)
                    case Refuse():
                        self._refuse(model, decision)
        for model, place in self.places.items():
            self._hold(place, model in held)

    def _hold(self, place: Place, held: bool) -> None:
        if held and not place.gate.held:
            place.held_since = trio.current_time()
        elif place.gate.held and not held:
            self._wake_at(trio.current_time())  # to see which requests have entered
        place.gate.hold(held)

    def _claims(self) -> list[Claim]:
        """Keepers that wish for a place, and models that have one, but let no request in."""
        claims = [request.claim for request in self._requests.values()]
        for model, place in self.places.items():
            since = place.gate.shut_out_since
            if since is not None and model not in self._requests:
                claims.append(_claim(model, place.needed, since))
        return sorted(claims, key=lambda claim: claim.since)

    def _world(self, claims: list[Claim]) -> World:
        config, budgets = self._in_effect.config, self._budgets
        unions = {
            device
            for claim in claims
            for device in claim.need
            if len(members(device)) > 1 and limit(budgets, device) is not None
        }
        residents = {model: place.resident for model, place in self.places.items()}
        if unions:
            budgets = {**budgets, **{name: limit(budgets, name) or 0 for name in unions}}
            claims = [_in_unions(claim, unions) for claim in claims]
            residents = {
                model: evolve(resident, need=with_unions(resident.need, unions))
                for model, resident in residents.items()
            }
        return World(
            residents,
            claims,
            budgets,
            config.pool.max_loaded_models,
            _groups(config.groups.values()),
            config.pool.turn,
        )

    @property
    def _budgets(self) -> Amounts:
        return budgets(self._devices, self._taken, self._in_effect.config.pool.memory_reserve)

    def _give_place(self, model: str) -> Place:
        request = self._requests.pop(model)
        needed, free = request.needed, self.room_beside_others(model).free
        budgets = self._budgets
        whole = {name: size for name, size in budgets.items() if server_of(name) in needed.servers}
        holds = {**spread(needed.amounts, free, budgets), **whole}
        request.place = self.places[model] = Place(request.gate, needed, self, holds)
        self._note_occupied_servers()
        request.decided.set()
        return request.place

    def _note_occupied_servers(self) -> None:
        self._gauge.occupied = {s for place in self.places.values() for s in place.needed.servers}

    def _evict(self, victims: Iterable[str], model: str) -> None:
        for victim in victims:
            self._journal.tell(Evicted(victim, Reason.PLACE, model))
            self._gates[victim].keeper.unload()

    def _refuse(self, model: str, refused: Refuse) -> None:
        # A model that still has a place learns of this only when it asks for the next one.
        if request := self._requests.pop(model, None):
            request.refused = refused
            request.decided.set()

    def _unload_surplus(self) -> None:
        for model in surplus(self._world([]), trio.current_time()):
            self._journal.tell(Evicted(model, Reason.NUMBER))
            self._gates[model].keeper.unload()

    def _unload_idle(self) -> None:
        now = trio.current_time()
        residents = [place.resident for place in self.places.values()]
        for model, at in unload_times(residents).items():
            if at <= now:
                self._journal.tell(Evicted(model, Reason.IDLE))
                self._gates[model].keeper.unload()
            else:
                self._wake_at(at)

    def _wake_at(self, moment: float) -> None:
        if moment < self._nap.deadline:
            self._nap.deadline = moment

    async def measure(self) -> None:
        """Measure what other programs hold, as far as that is possible at the moment."""
        self._devices = await self._gauge.devices()
        places = self.places.values()
        of_host = sum(place.anonymous_memory for place in places)
        taken = taken_by_others(self._devices, _held(places), of_host)
        seen = {HOST} if host_is_measured(self._devices) else ()
        unsettled = any(place.state in (State.LOADING, State.STOPPING) for place in places)
        self._taken = {
            device: now if device in seen or not unsettled else self._taken.get(device, now)
            for device, now in taken.items()
        }

    async def _until_returned(self, place: Place) -> None:
        """Wait until the memory is back: the system frees the host's when a process ends, but a
        GPU's driver frees its own some time later."""
        if place.holds.keys() <= {HOST} or place.is_cut_off:
            return
        with trio.move_on_after(_RETURN_PATIENCE):
            while not self._has_returned(place):
                await trio.sleep(_RETURN_PAUSE)
                self._devices = await self._gauge.devices()

    def _has_returned(self, place: Place) -> bool:
        others = _held(other for other in self.places.values() if other is not place)
        return all(
            device.total - device.free
            <= self._taken.get(device.budget, 0)
            + others.get(device.budget, 0)
            + (1 - _RETURNED_PART) * place.holds[device.budget]
            for device in self._devices
            if device.budget != HOST and device.budget in place.holds
        )


def _claim(model: str, needed: Needed, since: float) -> Claim:
    # An RPC server belongs to one model at a time: a claim to one byte of it claims all.
    servers = {name: max(needed.amounts.get(name, 0), 1) for name in needed.servers}
    return Claim(
        model,
        {**needed.amounts, **servers},
        since,
        needed.defect,
        least={**needed.least, **servers},
        mapped=needed.mapped,
    )


def _in_unions(claim: Claim, unions: Collection[str]) -> Claim:
    need = with_unions(claim.need, unions)
    least = need if claim.least is claim.need else with_unions(claim.least, unions)
    return evolve(claim, need=need, least=least)


def _groups(configured: Iterable[GroupSettings]) -> tuple[Group, ...]:
    return tuple(
        Group(frozenset(group.members), group.together, group.exclusive) for group in configured
    )


def _held(places: Iterable[Place]) -> dict[str, int]:
    held: dict[str, int] = {}
    for place in places:
        for device, amount in place.holds.items():
            held[device] = held.get(device, 0) + amount
    return held


def _left(budgets: Amounts, held: Amounts) -> Amounts:
    return {device: max(size - held.get(device, 0), 0) for device, size in budgets.items()}


def _refusal(model: str, refused: Refuse) -> NotAdmitted:
    kind = NoRoom if refused.status == NoRoom.status else NotAdmitted
    return kind(f'model "{model}" cannot be loaded: {refused.reason}')
