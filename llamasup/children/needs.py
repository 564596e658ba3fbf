"""What a model needs on a rung, from the best source that there is.

1. engine: the engine's own answer, for the command line of the child;
2. header: the formula, from the header of the model's file;
3. file size: for a file that only the engine can read.

What a child was measured to hold after it had worked refines this need (`memory.measured`), but
never makes a model count as too large. Answers and measurements are kept in `state`, and believed
for a week. An engine is asked only if its answer matters: that takes some 20 ms without GPUs, and
longer with them.
"""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path

import trio
from attrs import evolve, field, frozen

from llamasup.children.dry_run import Unheard
from llamasup.children.launcher import Launcher
from llamasup.children.remotes import Remotes
from llamasup.config.schema import ModelSettings
from llamasup.engine import memory_args
from llamasup.engine.argv import says_its_purpose
from llamasup.engine.known import KnownEngine
from llamasup.errors import EngineUnusable, ModelUnavailable
from llamasup.learned import Footprint, SourceName, State
from llamasup.memory.estimate import Need, estimate
from llamasup.memory.gauge import Gauge
from llamasup.memory.ladder import Rung
from llamasup.memory.measured import counted, is_fresh
from llamasup.memory.readings import HOST, Device
from llamasup.memory.room import Amounts, limit, union
from llamasup.models.gguf import BadModelFile, Header
from llamasup.models.headers import Headers
from llamasup.models.purpose import Purpose, purpose_as

log = logging.getLogger(__name__)

_REST = 60.0
"""Seconds for which an engine that said nothing is not asked again: each such try takes ten."""

_MATTERS = 0.5
"""A need that is a smaller part of the free memory fits, whatever the formula overlooks."""

_GLANCE = 0.2
_MOST_GLANCES = 64

_AS_BEFORE = 0.01
_A_DAY = 86400.0
_SILENCE = 3600.0
"""Seconds after which an engine that ended without an answer may be asked again."""

_USABLE = 0.9
"""The part of a GPU's memory that is expected to be usable for layers."""

_AS_RECKONED = 0.25
_ROUNDING = 256 << 20

_BATCH = 2048
_MICRO_BATCH = 512


class Source(Enum):
    """Where the knowledge of a need comes from."""

    MEASURED = "measured"
    ENGINE = "engine"
    HEADER = "header"
    FILE_SIZE = "file size"
    CONFIGURATION = "configuration"
    """For other servers, the operator says it."""

    UNKNOWN = "unknown"


@frozen
class Needed:
    """Bytes by budget: devices, and unions of them. A device that cannot be measured has no
    entry."""

    amounts: Amounts
    source: Source
    defect: str = ""
    """Why the model cannot be loaded at all; then the amounts are empty."""

    least: Amounts = field()
    """The least that the model can be loaded with, as the engine or the formula says: it is refused
    only if there can be less than that. If there is less than `amounts`, it must be alone."""

    servers: tuple[str, ...] = ()
    """RPC servers that the model must have for itself."""

    mapped: int = 0
    """This part of `least` on the host could be read from the model's file again and again, if the
    operator allowed it."""

    @least.default
    def _(self) -> Amounts:
        return self.amounts


class Needs:
    """What models need."""

    def __init__(
        self, launcher: Launcher, state: State, gauge: Gauge, headers: Headers | None = None
    ) -> None:
        self.gauge = gauge
        self.remotes = Remotes(gauge)
        self._launcher = launcher
        self._state = state
        self._headers = headers or Headers()
        self._asking: dict[tuple[str, ...], trio.Lock] = defaultdict(trio.Lock)
        """By RPC servers: an engine may hang on them, and others need not wait for that."""

        self._unanswered: dict[str, float] = {}
        self._not_asked_before: dict[tuple[str, ...], float] = {}
        self._glances: dict[tuple[object, ...], tuple[float, Sequence[Device] | None]] = {}

    async def trained_context(self, settings: ModelSettings) -> int | None:
        """How much context the model was trained on; None if its file does not say."""
        header = (await self._headers.of(settings.path)).header
        return header.trained_context if header else None

    async def purpose(self, settings: ModelSettings) -> Purpose:
        """What the model is for, as the operator or its file says."""
        return purpose_as(settings.purpose, (await self._headers.of(settings.path)).header)

    async def sure_purpose(self, settings: ModelSettings) -> Purpose | None:
        """The same; None if only the engine can tell, because its file cannot be read, or because
        the operator's own arguments say it."""
        header = (await self._headers.of(settings.path)).header
        if header is None or says_its_purpose(self._args(settings)):
            return None
        return purpose_as(settings.purpose, header)

    async def file_size(self, settings: ModelSettings) -> int:
        """Bytes of the model's file, all parts together; 0 if it cannot be read."""
        return (await self._headers.of(settings.path)).size

    async def devices(self, settings: ModelSettings) -> Sequence[Device] | None:
        """The devices that the engine would use for the model, with what is free on them now; None
        while the engine does not say. Raises EngineUnusable.

        Answers are kept for a moment, by arguments: hundreds of models have few kinds of them.
        """
        return await self._seen(self._launcher.engines.of(settings), self._args(settings))

    async def devices_of_all(self) -> Sequence[Device] | None:
        """The devices that the engine would use for a model without arguments of its own."""
        engine = self._launcher.engines.common
        return await self._seen(engine, engine.settings.args)

    async def _seen(self, engine: KnownEngine, arguments: Sequence[str]) -> Sequence[Device] | None:
        key, now = (engine, *arguments), trio.current_time()
        at, devices = self._glances.get(key, (-math.inf, None))
        if now - at >= _GLANCE:
            devices = await self._look_at_devices(engine, arguments)
            if len(self._glances) >= _MOST_GLANCES:
                self._glances.clear()
            self._glances[key] = now, devices
        return devices

    async def _look_at_devices(
        self, engine: KnownEngine, args: Sequence[str]
    ) -> Sequence[Device] | None:
        listing = await engine.listing(args)
        if listing is None:
            return []
        if listing.owner is not None:
            await self._look_at_common_devices()
        listed = await self.gauge.listed(listing)
        if listed is None:
            return None
        chosen = memory_args.devices(args, listing.environment)
        return listed if chosen is None else [d for d in listed if d.name in chosen]

    async def _look_at_common_devices(self) -> None:
        """Budgets have the names of the common engine's devices, so they are needed first."""
        with suppress(ModelUnavailable):
            if listing := await self._launcher.common_listing():
                await self.gauge.listed(listing)

    async def of(self, settings: ModelSettings, rung: Rung, free: Amounts | None = None) -> Needed:
        """What a child on `rung` needs. Raises EngineUnusable.

        The engine is asked only if its answer can matter when this much is `free`.
        """
        if defect := await self.defect_of_its_own(settings):
            return Needed({}, Source.HEADER, defect)
        name = await self._name(settings, rung)
        word = self._answered(name)
        if word is None:
            word = await self._reckon(settings, rung)
            if free is not None and not word.defect and self._matters(settings, word, free):
                word = await self.ask_engine(settings, rung) or word
        return word if word.defect else await self._refined(settings, name, word)

    async def defect_of_its_own(self, settings: ModelSettings) -> str:
        """What is wrong with the engine or the devices that this model alone has; "" if nothing is.
        Raises EngineUnusable for the engine that most models share."""
        if not settings.engine and not settings.devices:
            return ""
        try:
            listing = await self._launcher.listing(settings)
        except EngineUnusable as error:
            if not settings.engine:
                raise
            return str(error)
        if listing is None:
            wrong = "its engine cannot be told which devices to use: remove `devices` of the model"
            return wrong if settings.devices else ""
        listed = await self.gauge.listed(listing)
        there = [*(device.name for device in listed or ()), "none"]
        missing = [name for name in settings.devices if name not in there]
        if listed is None or not missing:
            return ""
        return (
            f"its engine lists no device {' and no '.join(missing)}; write {' or '.join(there)} as"
            " `devices` of the model"
        )

    async def ask_engine(self, settings: ModelSettings, rung: Rung) -> Needed | None:
        """The need as the engine says it; None if it does not say.

        Raises EngineUnusable. If this is cancelled, the engine that was asked is ended.
        """
        name = await self._name(settings, rung)
        servers = await self._servers(settings)
        async with self._asking[servers]:  # the next with this question finds the answer
            known, now = self._answered(name), trio.current_time()
            silent = now < self._not_asked_before.get(servers, -math.inf)
            silent |= now < self._unanswered.get(name, -math.inf)
            silent |= not self.gauge.occupied.isdisjoint(servers)
            if known or silent:
                return known
            try:
                whole = await self._with_context(settings, rung)
                purpose = await self.purpose(settings)
                answer = await self._launcher.breakdown(settings, whole, purpose)
            except Unheard as error:
                log.warning("the engine was not heard on %s: %s", settings.path.name, error)
                self._not_asked_before[servers] = trio.current_time() + _REST
                return None
            if answer is None:
                self._unanswered[name] = trio.current_time() + _SILENCE
                return None
            amounts = await self._lasting(settings, rung, answer)
            await self._state.note(name, Footprint(amounts, time.time(), "engine"))
            return Needed(amounts, Source.ENGINE)

    async def measured(self, settings: ModelSettings, rung: Rung, resident: int) -> None:
        """Note that a child on `rung` held so much of the host's memory. Raises EngineUnusable.

        GPU memory is not part of the number. Where GPUs share the host's memory, the number is
        worthless, and is not noted.
        """
        if any(device.unified for device in await self.devices(settings) or ()):
            return
        name, now = await self._name(settings, rung), time.time()
        before = self._measured(name)
        as_before = before and abs(resident - before.amounts[HOST]) <= _AS_BEFORE * resident
        if not (before and as_before and now - before.at < _A_DAY):
            await self._state.note(name, Footprint({HOST: resident}, now, "measured"))

    async def _lasting(self, settings: ModelSettings, rung: Rung, answer: Amounts) -> Amounts:
        """The engine's answer in a form that stays true. Its numbers for single GPUs hold only for
        the moment of the question; their sum still holds when other models come or go."""
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
            host, gpus = _if_gpus_were_free(host, gpus, formula, used)
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

    async def _refined(self, settings: ModelSettings, name: str, word: Needed) -> Needed:
        """This need, refined by what was measured, and reduced by what the operator allows."""
        amounts, source, least = word.amounts, word.source, dict(word.amounts)
        if measured := self._measured(name):
            # If only the engine can read the file, it is not known what else the model needs.
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
        environment = self._launcher.engines.of(settings).settings.env
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
            there_is = limit(free, device)  # unknown: then any size matters
            return size > (size if there_is is None else there_is) * _MATTERS

        return formula_is_blind or any(
            may_be_short(device, size) for device, size in reckoned.amounts.items()
        )

    def _args(self, settings: ModelSettings) -> Sequence[str]:
        return self._launcher.args(settings)

    async def _with_context(self, settings: ModelSettings, rung: Rung) -> Rung:
        """The rung with an explicit context. If it leaves the context to the engine, that is the
        trained context times the slots: the engine would first answer for a single slot."""
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
            return Needed({}, Source.HEADER)  # the engine will say what is wrong
        if need := await self._formula(settings, rung, len(devices)):
            return Needed(_together(need.host.total, need.gpu.total, devices), Source.HEADER)
        return Needed({HOST: reading.size}, Source.FILE_SIZE)

    async def _formula(self, settings: ModelSettings, rung: Rung, gpus: int) -> Need | None:
        """What the formula says; None for a file that only the engine can read."""
        header = (await self._headers.of(settings.path)).header
        if header is None:
            return None
        try:
            return await self._estimate(
                header, settings, await self._with_context(settings, rung), gpus
            )
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
    """The need of all GPUs together is one amount: the engine spreads it when it loads."""
    amounts = {HOST: host}
    place = union(device.budget for device in devices) or HOST
    amounts[place] = amounts.get(place, 0) + gpus
    return amounts


def _one_by_one(answer: Amounts, devices: Sequence[Device]) -> Amounts:
    """The need of each GPU, as the engine says: here the operator has fixed how it is split."""
    amounts = {HOST: answer[HOST]}
    for device in devices:
        amounts[device.budget] = amounts.get(device.budget, 0) + answer.get(device.name, 0)
    return amounts


def _if_gpus_were_free(
    host: int, gpus: int, formula: Need, devices: Sequence[Device]
) -> tuple[int, int]:
    """The need on host and GPUs as it would be if all memory of the GPUs were free.

    An engine that chooses the number of layers leaves on the host what GPUs have no room for now.
    """
    most = sum(device.total for device in devices if not device.unified) * _USABLE
    excess = host - formula.host.total
    if excess <= _AS_RECKONED * formula.host.total + _ROUNDING:
        return host, gpus
    back = max(min(excess, formula.gpu.total - gpus, int(most) - gpus), 0)
    return host - back, gpus + back
