"""How a life of llamasup ends: by kill -9, while it answers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random

import trio

from tests.chaos.load import LONGEST_CHAIN, STREAMS, Request
from tests.chaos.stage import Stage
from tests.chaos.subject import Subject


async def killed_under_load(
    stage: Stage,
    subject: Subject,
    models: Sequence[str],
    chance: Random,
    hung: Collection[int] = (),
) -> None:
    """Kill it while streams run; no cut may look whole, and no child outlive it for long.

    But for children that hang: nobody is left to end those, before the next start.
    """
    requests = [
        Request(subject.address, model, chance.choice(STREAMS), LONGEST_CHAIN - 100)
        for model in models
    ]
    async with trio.open_nursery() as nursery:
        for request in requests:
            nursery.start_soon(request.run)
        await requests[0].reached(chance.randint(1, 500))
        await subject.kill()
    stage.report.faults["kill -9 of llamasup under load"] += 1
    for request in requests:
        assert request.outcome is not None
        stage.report.count_taken_down(request.outcome, "kill -9 of llamasup")
    stage.report.orphaned(await subject.orphans(known=hung), "kill -9 of llamasup")
