"""What a model needs on a rung, from the best source that there is.

1. engine: its own answer to the very command line of the child;
2. header: the formula, from the model's file;
3. file size: of a file that only the engine can read.

What a child really held, read back when it had worked, refines that word (`memory.measured`); but
only the word says that a model is too large. Answers and measurements are kept in `state`, and
believed for a week. An engine is not asked for nothing, for that takes it some 20 ms without GPUs,
and longer with them.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import trio
from attrs import evolve, field, frozen

from llamasup.children.dry_run import Unheard
from llamasup.children.launcher import Launcher
from llamasup.config.schema import ModelSettings
from llamasup.engine import memory_args
from llamasup.learned import Footprint, SourceName, State
from llamasup.memory.estimate import Need, estimate
from llamasup.memory.gauge import Gauge
from llamasup.memory.ladder import Rung
from llamasup.memory.measured import counted, is_fresh
from llamasup.memory.readings import HOST, Device
from llamasup.memory.room import Amounts, limit, union
from llamasup.models.gguf import BadModelFile, Header
from llamasup.models.headers import Headers
from llamasup.models.purpose import Purpose, purpose_of

log = logging.getLogger(__name__)

_REST = 60.0
"""Seconds for which an engine that was not heard is not asked again: its silence takes ten."""

_MATTERS = 0.5
"""A need that is a smaller part of what is free fits, whatever the formula overlooks."""

_GLANCE = 0.2
_MOST_GLANCES = 64

_AS_BEFORE = 0.01
_A_DAY = 86400.0
_SILENCE = 3600.0
"""Seconds for which an engine that had no answer is believed to have none."""

_USABLE = 0.9
"""So much of its memory a GPU is thought to have for layers, after all that takes a little."""

_AS_RECKONED = 0.25
_ROUNDING = 256 << 20

_BATCH = 2048
_MICRO_BATCH = 512


class Source(Enum):
    """Who says so."""

    MEASURED = "measured"
    ENGINE = "engine"
    HEADER = "header"
    FILE_SIZE = "file size"


@frozen
class Needed:
    """Bytes by budget: devices, and unions of them. Of what nobody can gauge there is nothing."""

    amounts: Amounts
    source: Source
    defect: str = ""
    """Why it cannot be loaded at all; then the amounts are empty."""

    least: Amounts = field()
    """What it cannot do without, by the engine's word or the formula's: only if there is not so
    much, it is refused. Where there is less than the amounts, it is alone."""

    servers: tuple[str, ...] = ()
    """RPC servers that it must have for itself."""

    mapped: int = 0
    """So much of the least on the host could be read from the model's file again and again, if
    the operator allowed it."""

    @least.default
    def _(self) -> Amounts:
        return self.amounts


class Needs:
    """What models need, for everybody who asks."""

    def __init__(
        self, launcher: Launcher, state: State, gauge: Gauge, headers: Headers | None = None
    ) -> None:
        self.gauge = gauge
        self._launcher = launcher
        self._state = state
        self._headers = headers or Headers()
        self._asking = trio.Lock()
        self._unanswered: dict[str, float] = {}
        self._rests_until = -math.inf
        self._glances: dict[tuple[str, ...], tuple[float, Sequence[Device] | None]] = {}

    async def trained_context(self, settings: ModelSettings) -> int | None:
        """How much context the model was trained on; None if its file does not say."""
        header = (await self._headers.of(settings.path)).header
        return header.trained_context if header else None

    async def purpose(self, settings: ModelSettings) -> Purpose:
        """What the model is for, as its file says."""
        return purpose_of((await self._headers.of(settings.path)).header)

    async def file_size(self, settings: ModelSettings) -> int:
        """Bytes of the model's file, all parts together; 0 if it cannot be read."""
        return (await self._headers.of(settings.path)).size

    async def devices(self, settings: ModelSettings) -> Sequence[Device] | None:
        """The devices that the engine would use for it, with what is free on them now; None while
        it does not say. Raises EngineUnusable.

        Who asks about hundreds of models asks about few kinds of arguments.
        """
        args, now = tuple(self._args(settings)), trio.current_time()
        at, devices = self._glances.get(args, (-math.inf, None))
        if now - at >= _GLANCE:
            devices = await self._look_at_devices(settings)
            if len(self._glances) >= _MOST_GLANCES:
                self._glances.clear()
            self._glances[args] = now, devices
        return devices

    async def _look_at_devices(self, settings: ModelSettings) -> Sequence[Device] | None:
        listing = await self._launcher.listing(settings)
        if listing is None:
            return []
        listed = await self.gauge.listed(listing)
        if listed is None:
            return None
        chosen = memory_args.devices(self._args(settings), listing.environment)
        return listed if chosen is None else [d for d in listed if d.name in chosen]

    async def of(self, settings: ModelSettings, rung: Rung, free: Amounts | None = None) -> Needed:
        """What a child on `rung` needs. Raises EngineUnusable.

        The engine is asked only if, with so much `free`, its answer can make a difference.
        """
        name = await self._name(settings, rung)
        word = self._answered(name)
        if word is None:
            word = await self._reckon(settings, rung)
            if free is not None and not word.defect and self._matters(settings, word, free):
                word = await self.ask_engine(settings, rung) or word
        return word if word.defect else await self._weighed(settings, name, word)

    async def ask_engine(self, settings: ModelSettings, rung: Rung) -> Needed | None:
        """The engine's word; None if it has none to give.

        Raises EngineUnusable. Cancelled, the engine is gone.
        """
        name = await self._name(settings, rung)
        async with self._asking:  # one after the other: who wants the same finds the answer
            known, now = self._answered(name), trio.current_time()
            silent = now < max(self._rests_until, self._unanswered.get(name, -math.inf))
            silent |= not self.gauge.occupied.isdisjoint(await self._servers(settings))
            if known or silent:
                return known
            try:
                whole = await self._whole(settings, rung)
                purpose = await self.purpose(settings)
                answer = await self._launcher.breakdown(settings, whole, purpose)
            except Unheard as error:
                log.warning("the engine was not heard on %s: %s", settings.path.name, error)
                self._rests_until = trio.current_time() + _REST
                return None
            if answer is None:
                self._unanswered[name] = trio.current_time() + _SILENCE
                return None
            amounts = await self._heard(settings, rung, answer)
            await self._state.note(name, Footprint(amounts, time.time(), "engine"))
            return Needed(amounts, Source.ENGINE)

    async def measured(self, settings: ModelSettings, rung: Rung, resident: int) -> None:
        """A child on `rung` held so much of the host's memory. Raises EngineUnusable.

        What it took of GPUs is not seen there. Where they share the host's memory, that makes
        the figure worthless.
        """
        if any(device.unified for device in await self.devices(settings) or ()):
            return
        name, now = await self._name(settings, rung), time.time()
        before = self._measured(name)
        as_before = before and abs(resident - before.amounts[HOST]) <= _AS_BEFORE * resident
        if not (before and as_before and now - before.at < _A_DAY):
            await self._state.note(name, Footprint({HOST: resident}, now, "measured"))

    async def _heard(self, settings: ModelSettings, rung: Rung, answer: Amounts) -> Amounts:
        """What the engine says: true, device by device, for the moment in which it was asked; as
        sums, also when others have come or gone."""
        devices = await self.devices(settings) or []
        args = self._args(settings)
        if not devices:
            return {HOST: sum(answer.values())}
        if memory_args.fix_the_split(args):
            return _one_by_one(answer, devices)
        used = [device for device in devices if device.name in answer] or devices
        host, gpus = answer[HOST], sum(answer.get(device.name, 0) for device in used)
        formula = await self._formula(settings, rung, len(used))
        chooses_layers = rung.gpu_layers is None and not memory_args.fix_the_layers(args)
        if formula is not None and chooses_layers:
            host, gpus = _drawn_back(host, gpus, formula, used)
        return _together(host, gpus, used)

    def _answered(self, name: str) -> Needed | None:
        said = self._fresh(name, "engine")
        return Needed(said.amounts, Source.ENGINE) if said else None

    def _measured(self, name: str) -> Footprint | None:
        """What was measured, unless the engine has said something since."""
        measured, said = self._fresh(name, "measured"), self._fresh(name, "engine")
        if measured is None or HOST not in measured.amounts:
            return None
        return None if said is not None and said.at > measured.at else measured

    def _fresh(self, name: str, source: SourceName) -> Footprint | None:
        known = self._state.footprint(name, source)
        return known if known is not None and is_fresh(known.at, time.time()) else None

    async def _weighed(self, settings: ModelSettings, name: str, word: Needed) -> Needed:
        """This word, with what was measured, and with what the operator lets it do without."""
        amounts, source, least = word.amounts, word.source, dict(word.amounts)
        if measured := self._measured(name):
            # Of a file that only the engine can read, nobody knows what else it needs.
            known = None if source is Source.FILE_SIZE else amounts.get(HOST, 0)
            cache = self._launcher.most_cache_ram(settings)
            amounts = {**amounts, HOST: counted(measured.amounts[HOST], known, cache)}
            source = Source.MEASURED
        mapped = 0
        if memory_args.maps_weights(self._args(settings)):
            mapped = min(await self.file_size(settings), least.get(HOST, 0))
        least = {device: min(size, amounts[device]) for device, size in least.items()}
        if settings.overcommit and mapped:
            least[HOST], mapped = max(least[HOST] - mapped, 0), 0
        servers = await self._servers(settings)
        return Needed(amounts, source, least=least, servers=servers, mapped=mapped)

    async def _servers(self, settings: ModelSettings) -> tuple[str, ...]:
        listing = await self._launcher.listing(settings) if self._has_servers(settings) else None
        return listing.servers if listing else ()

    def _has_servers(self, settings: ModelSettings) -> bool:
        environment = self._launcher.engine.settings.env
        named = memory_args.word_after(self._args(settings), memory_args.RPC)
        return bool(memory_args.servers_of(named, environment))

    async def _name(self, settings: ModelSettings, rung: Rung) -> str:
        key = await self._launcher.key(settings)
        return f"{key}: {rung}, batch size {settings.batch_size}"

    def _matters(self, settings: ModelSettings, reckoned: Needed, free: Amounts) -> bool:
        formula_is_blind = reckoned.source is Source.FILE_SIZE or memory_args.concern_memory(
            self._args(settings)
        )

        def may_be_short(device: str, size: int) -> bool:
            there_is = limit(free, device)  # nobody knows: then it matters whatever it is
            return size > (size if there_is is None else there_is) * _MATTERS

        return formula_is_blind or any(
            may_be_short(device, size) for device, size in reckoned.amounts.items()
        )

    def _args(self, settings: ModelSettings) -> Sequence[str]:
        return [*self._launcher.engine.settings.args, *settings.extra_args]

    async def _whole(self, settings: ModelSettings, rung: Rung) -> Rung:
        """The rung with its context, where it leaves that to the engine: as the model was trained,
        for every slot. The engine's first word on an open one would be for a single slot."""
        context = memory_args.number_after(self._args(settings), memory_args.CONTEXT)
        if context is None and rung.context is None:
            trained = await self.trained_context(settings)
            context = trained and trained * settings.parallel
        return rung if context is None else evolve(rung, context=context)

    async def _reckon(self, settings: ModelSettings, rung: Rung) -> Needed:
        reading = await self._headers.of(settings.path)
        if reading.defect:
            return Needed({}, Source.HEADER, reading.defect)
        devices = await self.devices(settings)
        if devices is None:
            return Needed({}, Source.HEADER)  # it is for the engine to say what is wrong with it
        if need := await self._formula(settings, rung, len(devices)):
            return Needed(_together(need.host.total, need.gpu.total, devices), Source.HEADER)
        return Needed({HOST: reading.size}, Source.FILE_SIZE)

    async def _formula(self, settings: ModelSettings, rung: Rung, gpus: int) -> Need | None:
        """What the formula says; None of a file that only the engine can read."""
        header = (await self._headers.of(settings.path)).header
        if header is None:
            return None
        try:
            return await self._estimate(header, settings, await self._whole(settings, rung), gpus)
        except BadModelFile:
            return None

    async def _estimate(
        self, header: Header, settings: ModelSettings, rung: Rung, gpus: int
    ) -> Need:
        args = self._args(settings)
        batch = _BATCH if settings.batch_size == "auto" else settings.batch_size
        return estimate(
            header,
            rung,
            parallel=memory_args.number_after(args, memory_args.SLOTS) or settings.parallel,
            kv_unified=memory_args.is_unified(args),
            n_batch=memory_args.number_after(args, memory_args.BATCH) or batch,
            n_ubatch=memory_args.number_after(args, memory_args.MICRO_BATCH) or _MICRO_BATCH,
            gpus=gpus,
            mmproj=await self._projector(settings),
        )

    async def _projector(self, settings: ModelSettings) -> Header | None:
        own = None if settings.mmproj == "none" else str(settings.mmproj)
        path = memory_args.word_after(self._args(settings), memory_args.PROJECTOR) or own
        return (await self._headers.of(Path(path))).header if path else None


def _together(host: int, gpus: int, devices: Sequence[Device]) -> Amounts:
    """What is for GPUs is of all of them together: the engine spreads it when it loads."""
    amounts = {HOST: host}
    place = union(device.budget for device in devices) or HOST
    amounts[place] = amounts.get(place, 0) + gpus
    return amounts


def _one_by_one(answer: Amounts, devices: Sequence[Device]) -> Amounts:
    """As the engine says, where the operator has told it how to split."""
    amounts = {HOST: answer[HOST]}
    for device in devices:
        amounts[device.budget] = amounts.get(device.budget, 0) + answer.get(device.name, 0)
    return amounts


def _drawn_back(host: int, gpus: int, formula: Need, devices: Sequence[Device]) -> tuple[int, int]:
    """The same on host and GPUs as it would be if nobody else held any of the GPUs.

    An engine that chooses the number of layers leaves on the host what finds no room at the moment.
    """
    most = sum(device.total for device in devices if not device.unified) * _USABLE
    excess = host - formula.host.total
    if excess <= _AS_RECKONED * formula.host.total + _ROUNDING:
        return host, gpus
    back = max(min(excess, formula.gpu.total - gpus, int(most) - gpus), 0)
    return host - back, gpus + back
