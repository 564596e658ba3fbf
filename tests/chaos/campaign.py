"""Many faults, in many lives of llamasup, with clients at work.

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
from tests.chaos.load import KINDS, LONGEST_CHAIN, Request, Verdict
from tests.chaos.stage import Stage
from tests.chaos.subject import Subject, started
from tests.harness import eventually, is_alive

LANES = 3
MODELS_OF_A_LANE = 3
FAULTS_OF_A_LIFE = 3 * LANES * MODELS_OF_A_LANE


async def campaign(stage: Stage, faults: int) -> None:
    """So many faults, life after life."""
    for life, share in enumerate(_shares(faults)):
        await _life(stage, life, share)
        print(f"  {stage.report.faults.total()} faults injected", flush=True)


def _shares(faults: int) -> Iterator[int]:
    while faults > 0:
        yield min(faults, FAULTS_OF_A_LIFE)
        faults -= FAULTS_OF_A_LIFE


async def _life(stage: Stage, life: int, faults: int) -> None:
    lanes = [[f"m{lane}-{number}" for number in range(MODELS_OF_A_LANE)] for lane in range(LANES)]
    models = [model for lane in lanes for model in lane]
    subject = Subject(stage.folder / f"life-{life}", stage.serving(models))
    async with started(subject):
        async with trio.open_nursery() as nursery:
            for number, lane in enumerate(lanes):
                share = len(range(number, faults, LANES))
                chance = stage.chance("campaign", life, number)
                nursery.start_soon(_lane, stage, subject, lane, share, chance)
        await killed_under_load(stage, subject, models, stage.chance("end", life))
    starts = Counter(ready.model for ready in subject.readies())
    stage.report.restarts += starts.total() - len(starts)


async def _lane(
    stage: Stage, subject: Subject, models: list[str], faults: int, chance: Random
) -> None:
    for number in range(faults):
        await _attack(stage, subject, models[number % len(models)], chance)


async def _attack(stage: Stage, subject: Subject, model: str, chance: Random) -> None:
    """One fault, while others ask for the same model."""
    moments = OF_A_LIFE if model in subject.children() else OF_A_LOAD
    fault = Fault(chance.choice(SIGNALS), chance.choice(moments))
    attack = Attack(fault, subject, model, stage.model_file, chance)
    others = [_any_request(subject, model, chance) for _ in range(chance.randint(0, 2))]
    async with trio.open_nursery() as nursery:
        for other in others:
            nursery.start_soon(other.run, chance.choice([None, None, None, 10]))
        struck = await attack.run()
    stage.report.faults[str(fault)] += 1
    for request in (attack.victim, *others):
        _judge(stage, request, f"{fault} of {model} in {subject.folder.name}")
    await eventually(lambda: not is_alive(struck.pid))


def _any_request(subject: Subject, model: str, chance: Random) -> Request:
    kind = chance.choice(list(KINDS.values()))
    return Request(subject.address, model, kind, chance.randint(1, LONGEST_CHAIN - 100))


def _judge(stage: Stage, request: Request, about: str) -> None:
    """A request that suffers a single fault before its first byte is to be answered right."""
    outcome = request.outcome
    assert outcome is not None
    stage.report.count(outcome, about)
    replayed = outcome.began or outcome.verdict is not Verdict.ERROR
    stage.report.require(replayed, f"{about}: not sent again, but {outcome}")
