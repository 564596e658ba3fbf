"""Which models may be resident, which are unloaded for others, and which have to wait. Pure.

A model that requests wait for, and that is not loaded, has a claim. `decide` goes through the
claims, the longest waiting first, and says what each of them gets. It is asked again whenever
something has changed, and always answers from scratch: a drain that is no longer in the answer is
over.

- What an older claim was promised is not available to younger ones. They may load beside it if they
  fit now and at every later moment, so they never delay it.
- Idle models are unloaded at once. A busy one keeps its place for `patience`, counted from the
  claim or from its own start, whichever is later; then it admits no request until the claim has had
  its turn. So steady traffic starves no model, and two busy models do not displace each other at
  every request.
- Where several models have to be unloaded, none is closed to requests longer than needed: an idle
  one stays open while another one still answers. Of those that were closed together, the one that
  ends last stays closed. So each round leaves one model less, and the claim gets its turn.
- A model is loaded alone if only its measured need is too large, or if it may be larger than
  memory.
- Of all sets of victims that free enough memory the cheapest is unloaded: the least recently used,
  weighed by how long each took to load.
- Turns depend on age alone. A request's priority counts only among requests for the same model:
  between models, steady traffic of a high priority could starve all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from heapq import heappop, heappush
from itertools import islice
from typing import Final, TypeAlias

from attrs import evolve, field, frozen

from llamasup.memory.readings import HOST
from llamasup.memory.room import Amounts, members

MODELS: Final = "models"
"""A pseudo-device: every model takes one unit of it, and `max_loaded` units exist."""

_MOST_SETS: Final = 64
"""How many sets of victims are tried, in the order of their price. For up to six candidates that
finds the cheapest set, and nearly always for more. After that the choice is greedy, because each
further candidate doubles the number of sets."""


class State(Enum):
    """What a model does with the memory that it holds."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    """Ready, but since the last decision it admits no request."""

    STOPPING = "stopping"
    """Being ended, until its memory is really back."""


@frozen(eq=False)
class Resident:
    """A model that holds memory, or is about to."""

    model: str
    need: Amounts
    state: State = State.READY
    held_since: float = 0.0
    """If it is DRAINING: since when it admits no request."""

    in_flight: int = 0
    """Requests that hold a lease."""

    ready_at: float = 0.0
    last_used: float = 0.0
    """When its last request ended."""

    load_seconds: float = 0.0
    idle_unload: float = 0.0
    """Unload it after so many idle seconds; 0 means never."""

    pinned: bool = False
    takes: Amounts = field(init=False)
    """What it needs, and its one unit of MODELS."""

    @takes.default
    def _(self) -> Amounts:
        return {**self.need, MODELS: 1}

    @property
    def idle(self) -> bool:
        """Could it be unloaded without any request noticing?"""
        return self.in_flight == 0 and self.state in (State.READY, State.DRAINING)

    def price(self, now: float) -> float:
        """What unloading it costs: the wait for its next load, which gets less likely while it
        idles."""
        if self.state is State.DRAINING:
            return 0.0  # it is being emptied already; another victim would have to begin anew
        unused = now - self.last_used if self.idle else 0.0
        return (1 + self.load_seconds) / (1 + unused)


@frozen(eq=False)
class Claim:
    """A model that requests wait for, and that has admitted none of them since `since`."""

    model: str
    need: Amounts
    since: float
    defect: str = ""
    """Why it cannot be loaded at all, in the engine's words."""

    least: Amounts = field()
    """The least that it can be loaded with. If there is less than `need`, it is loaded alone."""

    mapped: int = 0
    """This part of it on the host is a file that the system can read again. If the operator allows
    that, this part need not fit."""

    takes: Amounts = field(init=False)

    @least.default
    def _(self) -> Amounts:
        return self.need

    @takes.default
    def _(self) -> Amounts:
        return {**self.need, MODELS: 1}


@frozen
class Group:
    """Models that may, or may not, be resident together."""

    members: frozenset[str]
    together: bool = True
    """May two of them be resident at the same time?"""

    exclusive: bool = False
    """Must no other model be resident beside them?"""

    def separates(self, one: str, other: str) -> bool:
        """Does this group keep these two from being resident at the same time?"""
        inside = (one in self.members) + (other in self.members)
        return (inside == 2 and not self.together) or (inside == 1 and self.exclusive)


@frozen
class World:
    """All that a decision depends on."""

    residents: Mapping[str, Resident]
    claims: Sequence[Claim]
    """Those that have waited longest come first."""

    budgets: Amounts
    """What models may hold on each device: what is free and what residents hold, less a reserve."""

    max_loaded: int = 0
    """0 means no limit: memory alone decides."""

    groups: tuple[Group, ...] = ()
    patience: float = 30.0
    """How long a busy model keeps its place when another one waits for it."""

    @property
    def limits(self) -> Amounts:
        """The budgets, and how many models may be loaded."""
        return {**self.budgets, MODELS: self.max_loaded} if self.max_loaded else self.budgets

    def staying_beside(self, model: str) -> dict[str, Resident]:
        """The other residents that are never unloaded for another model."""
        return {
            resident.model: resident
            for resident in self.residents.values()
            if resident.pinned and resident.model != model and resident.state is not State.STOPPING
        }

    def foes(self, model: str) -> list[Resident]:
        """The residents that must not be loaded together with this model."""
        if not self.groups:
            return []
        return [
            resident
            for resident in self.residents.values()
            if any(group.separates(model, resident.model) for group in self.groups)
        ]


@frozen
class Load:
    """Load the model now: there is room."""


@frozen
class Evict:
    """Stop these idle models. Once their memory is back, the decision will be Load."""

    victims: tuple[str, ...]


@frozen
class Drain:
    """These models admit no request from now on. When all requests are answered, the decision will
    be Evict."""

    victims: tuple[str, ...]
    still_open: tuple[str, ...] = ()
    """Victims that still admit requests, as long as others have not ended."""

    @property
    def held(self) -> tuple[str, ...]:
        """The victims that admit no request."""
        return tuple(victim for victim in self.victims if victim not in self.still_open)


@frozen
class Wait:
    """Something that has begun must end first. If nothing else happens, ask again at `until`."""

    until: float = math.inf


@frozen
class Refuse:
    """The model will not be loaded, and no model is unloaded for it."""

    status: int
    reason: str


Decision: TypeAlias = Load | Evict | Drain | Wait | Refuse


def decide(world: World, now: float) -> dict[str, Decision]:
    """What each claim gets. Claims that are not mentioned wait behind the others."""
    outlook = _Outlook(world, now)
    decisions: dict[str, Decision] = {}
    for claim in world.claims:
        decisions[claim.model] = outlook.consider(claim)
        if outlook.nothing_is_left:
            break
    return decisions


def refusal(world: World, claim: Claim) -> Refuse | None:
    """Why this model cannot be loaded, even if all that may be unloaded were; None if it can."""
    for device, need in claim.least.items():
        # A device of unknown size sets no limit: the engine will find out.
        if need > (budget := world.budgets.get(device, need)):
            there_is = f"there is room for {_gib(budget)}"
            return Refuse(507, _too_large(claim, device, there_is, need - budget))
    pinned = world.staying_beside(claim.model)
    if not pinned:
        return None
    they_stay = f"{', '.join(pinned)} will not be unloaded"
    if any(foe.model in pinned for foe in world.foes(claim.model)):
        return Refuse(503, f"its groups keep it out: {they_stay}")
    at_least = {**claim.least, MODELS: 1}
    for device, lack in _shortage(at_least, _total(pinned.values()), world.limits).items():
        if device == MODELS:
            return Refuse(503, f"max_loaded_models is {world.max_loaded}, and {they_stay}")
        return Refuse(507, _too_large(claim, device, they_stay, lack))
    return None


def dispensable(world: World, claim: Claim, now: float) -> tuple[str, ...]:
    """The models that could be unloaded for a load that ran out of memory although it seemed to
    fit.

    All of them hold memory of its devices. Those that are ending anyway come first, then the idle
    ones, the cheapest first.
    """

    def beside(resident: Resident) -> bool:
        return resident.model != claim.model and meets(resident.need, claim.need)

    others = [resident for resident in world.residents.values() if beside(resident)]
    going = [r for r in others if r.state is State.STOPPING and not r.in_flight]
    idle = [resident for resident in others if resident.idle and not resident.pinned]
    return _names(going + sorted(idle, key=lambda resident: resident.price(now)))


def meets(one: Amounts, other: Amounts) -> bool:
    """Do both hold memory of the same device? If it is not known what one holds, it may do so."""
    holds, needs = (
        {member for device, size in amounts.items() if size for member in members(device)}
        for amounts in (one, other)
    )
    return not holds or not needs or not holds.isdisjoint(needs)


def _cut(world: World, claim: Claim) -> Claim:
    """The claim with its need cut down to what it can ever get, but not below its `least`."""
    if claim.least == claim.need:
        return claim
    stay = _total(world.staying_beside(claim.model).values())
    need = {
        device: max(
            min(size, world.budgets.get(device, size) - stay.get(device, 0)),
            claim.least.get(device, 0),
        )
        for device, size in claim.need.items()
    }
    return evolve(claim, need=need)


def forecast(world: World, claim: Claim, now: float) -> Decision:
    """What it takes to load this model: as if it were not loaded, no other model waited, and each
    of the others had already had its turn."""
    others = {model: other for model, other in world.residents.items() if model != claim.model}
    alone = evolve(world, residents=others, claims=[claim], patience=-math.inf)
    return decide(alone, now)[claim.model]


def unload_times(residents: Iterable[Resident]) -> dict[str, float]:
    """At what time each idle model will have idled long enough to be unloaded."""
    return {
        resident.model: resident.last_used + resident.idle_unload
        for resident in residents
        if resident.idle and resident.idle_unload and not resident.pinned
    }


def surplus(world: World, now: float) -> tuple[str, ...]:
    """The idle models to unload because `max_loaded` was lowered, and more are loaded now."""
    staying = [r for r in world.residents.values() if r.state is not State.STOPPING]
    too_many = max(len(staying) - world.max_loaded, 0) if world.max_loaded else 0
    movable = [resident for resident in staying if resident.idle and not resident.pinned]
    return _names(sorted(movable, key=lambda resident: resident.price(now))[:too_many])


class _Outlook:
    """What models hold, from now until every claim considered so far has got what it was
    promised."""

    def __init__(self, world: World, now: float) -> None:
        self._world = world
        self._now = now
        self._limits = world.limits
        residents = world.residents.values()
        staying = [r for r in residents if r.state is not State.STOPPING]
        self._finally = _total(staying)
        self._peak = _total(residents)
        """The most that is held of each device at any moment until `_finally` is reached."""

        self._movable = {r.model: r for r in staying if not r.pinned}
        self._awaited: set[str] = set()
        """Residents that requests wait for: they are idle only until these requests enter."""

        self._promised: list[str] = []
        self._closed: set[str] = set()
        """Devices that an older claim needs, though it has no promise yet."""

    @property
    def nothing_is_left(self) -> bool:
        """Is it pointless to consider any more claims?"""
        return MODELS in self._closed or self._limits.keys() == self._closed != set()

    def consider(self, claim: Claim) -> Decision:
        """What the next claim gets."""
        own = self._world.residents.get(claim.model)
        if own is not None and own.state is not State.STOPPING:
            self._awaited.add(claim.model)
            return Wait()
        if refused := refusal(self._world, claim):
            return refused
        claim = _cut(self._world, claim)
        if self._comes_behind(claim):
            return self._close(claim)
        if own is not None:
            return self._after_its_end(claim)
        foes = self._world.foes(claim.model)
        if not foes and not _shortage(claim.takes, self._peak, self._limits):
            _add(self._peak, claim.takes)
            self._promise(claim, [])
            return Load()
        return self._make_room(claim, foes)

    def _after_its_end(self, claim: Claim) -> Wait:
        """The model's previous child has to end first, which may take as long as its answers. The
        place is kept for one turn; after that the claim still comes first when it can be loaded."""
        kept_until = claim.since + self._world.patience
        if self._now < kept_until and not _shortage(claim.takes, self._finally, self._limits):
            self._promise(claim, [])
        return Wait(until=kept_until if self._now < kept_until else math.inf)

    def _comes_behind(self, claim: Claim) -> bool:
        """Would this claim, whatever it got, get in the way of an older one?"""
        return not self._closed.isdisjoint(claim.takes) or any(
            group.separates(claim.model, other)
            for group in self._world.groups
            for other in self._promised
        )

    def _make_room(self, claim: Claim, foes: list[Resident]) -> Decision:
        """Unload idle models, or else those whose turn is over; or else wait until turns end.

        No model is unloaded for one that will not load. (If there is room, the engine may try.)
        """
        if claim.defect:
            return Refuse(503, claim.defect)
        idle, over, ends = [], [], [math.inf]
        for resident in self._movable.values():
            end = self._end_of_turn(resident, claim)
            if resident.idle and resident.model not in self._awaited:
                idle.append(resident)
            elif end <= self._now:
                over.append(resident)
            else:
                ends.append(end)
        wish = self._wish(claim, foes)
        if (victims := wish.cheapest(idle)) is not None:
            self._promise(claim, victims)
            return Evict(_names(victims)) if victims else Wait()
        if (victims := wish.cheapest(idle + over)) is not None:
            self._promise(claim, victims)
            return Drain(_names(victims), _names(_still_open(victims, self._awaited)))
        if (victims := wish.cheapest(list(self._movable.values()))) is not None:
            self._promise(claim, victims)
            return Wait(until=min(ends))
        return self._close(claim)

    def _end_of_turn(self, resident: Resident, claim: Claim) -> float:
        if resident.state is State.LOADING:
            return math.inf
        return max(claim.since, resident.ready_at) + self._world.patience

    def _wish(self, claim: Claim, foes: list[Resident]) -> _Wish:
        forced = [foe for foe in foes if foe.model in self._movable]
        used = dict(self._finally)
        for foe in forced:
            _take_away(used, foe.takes)
        return _Wish(forced, _shortage(claim.takes, used, self._limits), self._now)

    def _promise(self, claim: Claim, victims: list[Resident]) -> None:
        self._promised.append(claim.model)
        for victim in victims:
            del self._movable[victim.model]
            _take_away(self._finally, victim.takes)
        _add(self._finally, claim.takes)
        for device, amount in self._finally.items():
            self._peak[device] = max(self._peak.get(device, 0), amount)

    def _close(self, claim: Claim) -> Wait:
        """The claim gets no promise yet, but later claims must not take what it needs."""
        self._closed.update(claim.takes.keys() & self._limits.keys())
        return Wait()


@frozen
class _Wish:
    """What a claim needs: that the `forced` models are unloaded, and the `shortage` is freed."""

    forced: list[Resident]
    shortage: Amounts
    now: float

    def cheapest(self, candidates: list[Resident]) -> list[Resident] | None:
        """The candidates to unload; None if all of them together do not free enough."""
        if not all(foe in candidates for foe in self.forced):
            return None
        useful = [
            r
            for r in candidates
            if r not in self.forced and not self.shortage.keys().isdisjoint(r.takes)
        ]
        if not _frees(useful, self.shortage):
            return None
        ranked = sorted(useful, key=lambda resident: resident.price(self.now))
        sets = islice(_sets_by_price(ranked, self.now), _MOST_SETS)
        exact = (chosen for chosen in sets if _frees(chosen, self.shortage))
        return self.forced + (next(exact, []) or _without_needless(ranked, self.shortage))


def _still_open(victims: list[Resident], awaited: set[str]) -> list[Resident]:
    """The victims that may stay open: idle ones that would only wait for the answers of others, and
    those whose own requests have waited for longer, and so come in first.

    Of victims that were closed together, those that have ended open again while others still
    answer. The one that ends last stays closed: if all opened again, they might never be idle
    together.
    """
    busy = [victim for victim in victims if not victim.idle]
    ending = [victim.held_since for victim in busy if victim.state is State.DRAINING]
    first = min(ending, default=math.inf)

    def may_go_on(victim: Resident) -> bool:
        if victim.idle and victim.model in awaited:
            return True
        if victim.state is State.DRAINING:
            return victim.idle and first <= victim.held_since
        return bool(ending or (victim.idle and busy))

    return [victim for victim in victims if may_go_on(victim)]


def _sets_by_price(ranked: list[Resident], now: float) -> Iterator[list[Resident]]:
    """All sets of these residents, the cheapest first, and of equally cheap ones the smallest.

    A set is kept as the indices of its members. Every set but the empty one is made from exactly
    one other, which costs no more: either its last member was added, or it replaced the resident
    before it in the ranking.
    """
    prices = [resident.price(now) for resident in ranked]
    yield []
    heap: list[tuple[float, int, tuple[int, ...]]] = [(prices[0], 1, (0,))] if prices else []
    while heap:
        price, size, members = heappop(heap)
        yield [ranked[member] for member in members]
        others, last = members[:-1], members[-1]
        if (following := last + 1) < len(prices):
            added = price + prices[following]
            heappush(heap, (added, size + 1, (*members, following)))
            heappush(heap, (added - prices[last], size, (*others, following)))


def _without_needless(ranked: list[Resident], shortage: Amounts) -> list[Resident]:
    """Enough of them to end the shortage, and none that is not needed: the dearest stay if they
    can."""
    chosen = list(ranked)
    freed = _total(ranked)
    for resident in reversed(ranked):
        takes = resident.takes
        if all(freed[device] - takes.get(device, 0) >= lack for device, lack in shortage.items()):
            _take_away(freed, takes)
            chosen.remove(resident)
    return chosen


def _frees(residents: list[Resident], shortage: Amounts) -> bool:
    for device, lack in shortage.items():
        for resident in residents:
            lack -= resident.takes.get(device, 0)
        if lack > 0:
            return False
    return True


def _shortage(takes: Amounts, used: Amounts, limits: Amounts) -> dict[str, int]:
    """What is lacking on the devices of `takes`, if `used` is used already."""
    lacks = {
        device: used.get(device, 0) + needed - limits[device]
        for device, needed in takes.items()
        if needed and device in limits
    }
    return {device: lack for device, lack in lacks.items() if lack > 0}


def _total(residents: Iterable[Resident]) -> dict[str, int]:
    total: dict[str, int] = {}
    for resident in residents:
        _add(total, resident.takes)
    return total


def _add(total: dict[str, int], amounts: Amounts) -> None:
    for device, amount in amounts.items():
        total[device] = total.get(device, 0) + amount


def _take_away(total: dict[str, int], amounts: Amounts) -> None:
    for device, amount in amounts.items():
        total[device] -= amount


def _names(residents: list[Resident]) -> tuple[str, ...]:
    return tuple(resident.model for resident in residents)


def _too_large(claim: Claim, device: str, why: str, lack: int) -> str:
    words = f"it needs {_gib(claim.least[device])} on {device}, and {why}"
    if device != HOST or lack > claim.mapped:
        return words
    return f"{words}; with models.{claim.model}.overcommit = true the engine may try"


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
