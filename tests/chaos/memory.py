"""Memory that really runs out: while a model loads, and in a running child."""

from __future__ import annotations

import re
import resource
import shlex
from collections.abc import Sequence
from pathlib import Path

import trio

from tests.chaos.by_hand import Launch, limit_without_room_for_weights, start
from tests.chaos.load import KINDS, LONGEST_CHAIN, STREAMS, Request, Verdict, long_prompt
from tests.chaos.stage import Stage
from tests.chaos.subject import Subject, started
from tests.harness import eventually

_RUNGS = [1_048_576, 524_288, 262_144, 32_768]
_ROOM = 192 << 20
"""More than the lowest rung needs: too little for the KV cache of the second rung (its share is
256 MiB) and for the compute buffer of the third (128 MiB for the cache, 258 MiB for the buffer)."""

_HEAVY = 150_000
"""So many numbers make 73 MiB of weights: what else a start allocates is less."""

_STEADY = {"engine.env.MALLOC_ARENA_MAX": "1"}
"""Every other arena of glibc's would take 64 MiB of the address space, or not, by chance."""

_PLAINLY = ["-lm", "none", "-fit", "off"]
"""Weights are read, not mapped, and loaded once, not measured before."""

_LIMITING = """\
#!/bin/sh
# The engine under a limit of its address space: each start to serve takes the next one.
case " $* " in *" --model "*) limit=$(head -n 1 {limits}); sed -i 1d {limits} ;; esac
exec ${{limit:+prlimit --as=$limit}} {engine} "$@"
"""


async def down_the_ladder(stage: Stage) -> None:
    """Weights, KV cache and compute buffer do not fit, one after the other; the fourth rung holds.

    Weights that do not fit fit on no rung: so there is least memory at the first start. The other
    rungs have the same limit. The client that asked first gets its answer.
    """
    model = stage.written("heavy.gguf", up_to=_HEAVY)
    of_each = {"path": str(model), "batch_size": 512, "extra_args": _PLAINLY}
    weights, others = await _limits(stage, of_each)
    folder = stage.folder / "ladder"
    folder.mkdir()
    limits, engine = folder / "limits", folder / "engine"
    limits.write_text("".join(f"{limit}\n" for limit in (weights, *[others] * len(_RUNGS))))
    words = {"limits": shlex.quote(str(limits)), "engine": shlex.join(stage.engine_words)}
    engine.write_text(_LIMITING.format(**words))
    engine.chmod(0o700)
    settings = stage.serving(["m"], **of_each, context_size=_RUNGS[0])
    settings |= _STEADY | {"engine.command": str(engine), "ladder.contexts": _RUNGS}
    async with started(Subject(folder, settings)) as subject:
        await _expect(stage, subject, "the client that asked first")
        _expect_stumbles(stage, subject)
        await eventually((folder / "state" / "state.json").exists)
        await subject.kill()
        stage.report.orphaned(await subject.orphans(), "down the ladder")
        await subject.start()
        await _expect(stage, subject, "after a restart")
        loads = (await subject.status("m"))["loads"]
        stage.report.require(loads == 1, f"the rung that held was not remembered: {loads} loads")


async def _limits(stage: Stage, of_each: dict[str, object]) -> tuple[int, int]:
    """Limits of the address space: one for failing weights, one for the lowest rung alone."""
    folder = stage.folder / "unlimited"
    settings = stage.serving(["m"], **of_each, context_size=_RUNGS[-1])
    async with started(Subject(folder, settings | _STEADY)) as subject:
        await _expect(stage, subject, "without a limit")
        launch = Launch.of(await subject.child("m"))
    weights = limit_without_room_for_weights(launch, folder)
    return weights, start(launch, folder).address_space + _ROOM


def _expect_stumbles(stage: Stage, subject: Subject) -> None:
    stumbles = re.findall(r"out of memory \((.*?)\): next rung", subject.log)
    stage.report.note(f"the rungs failed for: {'; '.join(stumbles)}")
    for words, sign in zip(stumbles, ("allocate CPU buffer", "kv cache", "compute"), strict=False):
        stage.report.require(sign in words, f"not for {sign}, but: {words}")
    stage.report.require(len(stumbles) == len(_RUNGS) - 1, f"{len(stumbles)} rungs failed")
    stage.report.faults["OOM while loading"] += len(stumbles)


async def out_of_memory_while_running(
    stage: Stage, spares: Sequence[int] = (0, 1 << 20, 8 << 20)
) -> None:
    """The limit shrinks to what a child has mapped, and a little more; then much is asked of it."""
    settings = stage.serving(["m"], context_size="auto", batch_size=512)
    settings |= {"ladder.contexts": [32768, 16384, 8192, 4096]}
    chance = stage.chance("running")
    async with started(Subject(stage.folder / "running", settings)) as subject:
        for spare in spares:
            await _expect(stage, subject, f"before {spare >> 20} MiB are left")
            _shrink(await subject.child("m"), spare)
            stage.report.faults["OOM while running"] += 1
            asked = [
                Request(subject.address, "m", kind, LONGEST_CHAIN - 100, prompt)
                for kind, prompt in (
                    (chance.choice(STREAMS), long_prompt(chance)),
                    (KINDS["chat"], long_prompt(chance)),
                    (KINDS["tokenize"], ""),
                    (chance.choice(STREAMS), "count"),
                )
            ]
            async with trio.open_nursery() as nursery:
                for request in asked:
                    nursery.start_soon(request.run)
            for request in asked:
                assert request.outcome is not None
                stage.report.count(request.outcome, f"with {spare >> 20} MiB left")
        await _expect(stage, subject, "afterwards")
        stage.report.restarts += len(subject.readies()) - 1


def _shrink(pid: int, spare: int) -> None:
    mapped = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (mapped + spare, hard))


async def _expect(stage: Stage, subject: Subject, when: str) -> None:
    """A small request is to be answered right."""
    outcome = await subject.ask("m", KINDS["chat stream"], 20)
    stage.report.count(outcome, when)
    stage.report.require(outcome.verdict is Verdict.RIGHT, f"{when}: {outcome}")
