"""Many faults, in many lives of llamasup, with clients at work, and in any weather.

A model whose children die again and again has to wait ever longer for the next one. So each life
has several models, each suffers a few faults, and then llamasup itself is killed under load.
Several lanes work at once, each on models of its own; what a lane does follows from the seed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import trio

from tests.chaos.ends import killed_under_load
from tests.chaos.faults import OF_A_LIFE, OF_A_LOAD, SIGNALS, Attack, Fault
from tests.chaos.load import KINDS, LONGEST_CHAIN, POISON, Request, Verdict
from tests.chaos.stage import Stage
from tests.chaos.subject import Subject, started
from tests.chaos.weather import Weather, weather
from tests.harness import eventually, is_alive

LANES = 3
MODELS_OF_A_LANE = 3
POISONOUS = 0.1
"""So many of the faults are requests."""

FAULTS_OF_A_LIFE = 3 * LANES * MODELS_OF_A_LANE


async def campaign(stage: Stage, faults: int) -> None:
    """So many faults, life after life."""
    async with weather(stage) as sky:
        for life, share in enumerate(_shares(faults)):
            await _life(stage, sky, life, share)
            print(f"  {stage.report.faults.total()} faults injected", flush=True)


def _shares(faults: int) -> Iterator[int]:
    while faults > 0:
        yield min(faults, FAULTS_OF_A_LIFE)
        faults -= FAULTS_OF_A_LIFE


async def _life(stage: Stage, sky: Weather, life: int, faults: int) -> None:
    lanes = [[f"m{lane}-{number}" for number in range(MODELS_OF_A_LANE)] for lane in range(LANES)]
    models = [model for lane in lanes for model in lane]
    settings = stage.serving(models) | sky.state_folder(f"life-{life}")
    folder = stage.folder / f"life-{life}"
    subject = Subject(folder, settings, sky.exposed(), has_scribe=True)
    async with started(subject):
        async with trio.open_nursery() as outside:
            outside.start_soon(sky.rage, stage, subject, stage.chance("weather", life))
            async with trio.open_nursery() as nursery:
                for number, lane in enumerate(lanes):
                    share = len(range(number, faults, LANES))
                    chance = stage.chance("campaign", life, number)
                    nursery.start_soon(_lane, stage, sky, subject, lane, share, chance)
            outside.cancel_scope.cancel()
        await killed_under_load(stage, subject, models, stage.chance("end", life))
    for words in ("Traceback", "out of memory"):
        stage.report.require(words not in subject.log, f"{words} in the log of {folder.name}")
    starts = Counter(ready.model for ready in subject.readies())
    stage.report.restarts += starts.total() - len(starts)


async def _lane(
    stage: Stage, sky: Weather, subject: Subject, models: list[str], faults: int, chance: Random
) -> None:
    for number in range(faults):
        model = models[number % len(models)]
        began = trio.current_time()
        attack = _poison if chance.random() < POISONOUS else _strike
        for request, about in await attack(stage, subject, model, chance):
            _judge(stage, request, about, sky.was_clear_since(began))


_Judged = list[tuple[Request, str]]


async def _poison(stage: Stage, subject: Subject, model: str, chance: Random) -> _Judged:
    """One request that no engine survives, while others ask for the same model."""
    others = _any_others(subject, model, chance)
    poison = Request(subject.address, model, POISON, chance.randint(1, 3))
    async with trio.open_nursery() as nursery:
        for other in (*others, poison):
            nursery.start_soon(other.run)
    assert poison.outcome is not None
    told = poison.outcome.verdict is Verdict.ERROR
    stage.report.require(told, f"poison for {model}: {poison.outcome}")
    stage.report.count(poison.outcome, f"poison for {model}")
    stage.report.faults["a poisonous request"] += 1
    return [(other, f"beside poison for {model} in {subject.folder.name}") for other in others]


async def _strike(stage: Stage, subject: Subject, model: str, chance: Random) -> _Judged:
    """One fault, while others ask for the same model."""
    moments = OF_A_LIFE if model in subject.children() else OF_A_LOAD
    fault = Fault(chance.choice(SIGNALS), chance.choice(moments))
    attack = Attack(fault, subject, model, stage.model_file, chance)
    others = _any_others(subject, model, chance)
    async with trio.open_nursery() as nursery:
        for other in others:
            nursery.start_soon(other.run, chance.choice([None, None, None, 10]))
        struck = await attack.run()
    if struck:
        stage.report.faults[str(fault)] += 1
        await eventually(lambda: not is_alive(struck.pid))
    about = f"{fault} of {model} in {subject.folder.name}"
    return [(request, about) for request in (attack.victim, *others)]


def _any_others(subject: Subject, model: str, chance: Random) -> list[Request]:
    return [_any_request(subject, model, chance) for _ in range(chance.randint(0, 2))]


def _any_request(subject: Subject, model: str, chance: Random) -> Request:
    kind = chance.choice(list(KINDS.values()))
    return Request(subject.address, model, kind, chance.randint(1, LONGEST_CHAIN - 100))


def _judge(stage: Stage, request: Request, about: str, in_clear_weather: bool) -> None:
    """A request that suffers a single fault before its first byte is to be answered right; unless
    the machine had troubles of its own meanwhile: then a clear error is an answer, too."""
    outcome = request.outcome
    assert outcome is not None
    stage.report.count(outcome, about)
    replayed = outcome.began or outcome.verdict is not Verdict.ERROR
    stage.report.require(
        replayed or not in_clear_weather, f"{about}: not sent again, but {outcome}"
    )
