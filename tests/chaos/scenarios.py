"""What no signal can do: disks, descriptors and files that fail, and llamasup's own death."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median

import trio

from tests.chaos.by_hand import Launch, start
from tests.chaos.ends import killed_under_load
from tests.chaos.faults import Attack, Fault, Moment
from tests.chaos.load import KINDS, LONGEST_CHAIN, Request, Verdict, connected
from tests.chaos.memory import down_the_ladder, out_of_memory_while_running
from tests.chaos.stage import Stage
from tests.chaos.subject import LLAMASUP, PATIENCE, Subject, started
from tests.harness import eventually, is_alive

_ON_A_DISK = """\
mkdir -p {folder} && mount -t tmpfs -o size=64k tmpfs {folder} || exit 99
dd if=/dev/zero of={folder}/fill 2>/dev/null
mount -o remount,{mode} {folder}
exec "$@"
"""


async def right(stage: Stage, subject: Subject, model: str, when: str) -> None:
    """A small request is to be answered right."""
    outcome = await subject.ask(model, KINDS["chat stream"], 20)
    stage.report.count(outcome, when)
    stage.report.require(outcome.verdict is Verdict.RIGHT, f"{when}: {outcome}")


async def clean_end(stage: Stage, subject: Subject, when: str) -> None:
    """It stops when told to, and leaves nobody behind."""
    status = await subject.stop()
    stage.report.require(status == 0, f"{when}: exit status {status}\n{subject.log[-2000:]}")
    stage.report.orphaned(await subject.orphans(), when)


async def swift_recovery(stage: Stage, deaths: int = 8) -> None:
    """How long it takes from a death to the next readiness, less what the engine itself takes.

    A model's second death has to wait, by policy: so each is the first one of its model.
    """
    models = [f"m{number}" for number in range(deaths)]
    subject = Subject(stage.folder / "swift", stage.serving(models))
    killed = Fault(signal.SIGKILL, Moment.PREFILL)
    own: list[float] = []
    took: list[float] = []
    async with started(subject):
        for model in models:
            await right(stage, subject, model, "before a death")
            launch = Launch.of(await subject.child(model))
            own += [start(launch, subject.folder).seconds for _ in range(3)]
            attack = Attack(killed, subject, model, stage.model_file, stage.chance("swift", model))
            struck = await attack.run()
            assert attack.victim.outcome is not None
            stage.report.count(attack.victim.outcome, "a swift recovery")
            stage.report.faults[str(killed)] += 1
            ready = [ready for ready in subject.readies() if ready.model == model][-1]
            assert struck is not None
            stage.report.require(ready.pid != struck.pid, f"{model} was not started again")
            took.append(ready.at - struck.at)
        await clean_end(stage, subject, "a swift recovery")
    stage.report.restarts += len(models)
    stage.report.recoveries += [seconds - median(own) for seconds in took]
    stage.report.note(f"the engine itself takes {median(own) * 1000:.0f} ms to load")


async def full_disk(stage: Stage) -> None:
    """State and cache on a disk that is full, and the log on another."""
    await _on_a_bad_disk(stage, "rw")


async def read_only_disk(stage: Stage) -> None:
    """State and cache on a disk that cannot be written, and the log on a full one."""
    await _on_a_bad_disk(stage, "ro")


async def _on_a_bad_disk(stage: Stage, mode: str) -> None:
    folder = stage.folder / f"disk-{mode}"
    disk = folder / "disk"
    script = _ON_A_DISK.format(folder=shlex.quote(str(disk)), mode=mode)
    # In a mount namespace of its own: the disk is gone with the process.
    alone = ("unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *LLAMASUP)
    settings = stage.serving(["m"])
    settings |= {f"folders.{name}": str(disk / name) for name in ("state", "cache")}
    for log_file in (None, Path("/dev/full")):
        about = (
            f"state and cache on a bad disk ({mode}), log {'on another' if log_file else 'well'}"
        )
        async with started(Subject(folder, settings, alone, log_file)) as subject:
            await right(stage, subject, "m", about)
            os.kill(await subject.child("m"), signal.SIGKILL)
            await right(stage, subject, "m", f"{about}, after a death")
            await clean_end(stage, subject, about)  # what a child took is noted at its end
            if log_file is None:
                complained = "state.json cannot be written" in subject.log
                stage.report.require(complained, f"{about}: it did not complain")
                stage.report.require("Traceback" not in subject.log, f"{about}:\n{subject.log}")
        stage.report.faults["bad disk"] += 1


async def no_descriptors(stage: Stage) -> None:
    """More come than there are descriptors, and the child dies. Who idles makes way for others."""
    limited = ("prlimit", "--nofile=64", *LLAMASUP)
    subject = Subject(stage.folder / "descriptors", stage.serving(["m", "n"]), limited)
    async with started(subject):
        await right(stage, subject, "m", "with descriptors")
        idle = [await connected(subject.address) for _ in range(80)]
        stage.report.faults["no descriptors"] += 1
        os.kill(await subject.child("m"), signal.SIGKILL)
        asked = [Request(subject.address, model, KINDS["chat stream"], 20) for model in "mmnn"]
        async with trio.open_nursery() as nursery:
            for request in asked:
                nursery.start_soon(request.run)
        for request in asked:
            assert request.outcome is not None
            stage.report.count(request.outcome, "without descriptors")
        for connection in idle:
            await connection.aclose()
        for model in "mn":
            await right(stage, subject, model, f"{model}, when descriptors are free again")
        await clean_end(stage, subject, "no descriptors")


async def replaced_engine(stage: Stage) -> None:
    """The engine's program is replaced while it runs; the next child is of the new one."""
    folder = stage.folder / "replaced"
    folder.mkdir()
    engine = folder / "engine"
    _write_engine(stage, engine, "old")
    subject = Subject(folder, stage.serving(["m"]) | {"engine.command": str(engine)})
    async with started(subject):
        await right(stage, subject, "m", "with the old engine")
        _write_engine(stage, engine, "new")
        stage.report.faults["engine replaced"] += 1
        await right(stage, subject, "m", "with the old engine's child")
        os.kill(await subject.child("m"), signal.SIGKILL)
        await right(stage, subject, "m", "with the new engine")
        environment = Launch.of(await subject.child("m")).environment
        stage.report.require(environment.get("CHAOS") == "new", "the old engine was started again")
        await clean_end(stage, subject, "a replaced engine")


def _write_engine(stage: Stage, path: Path, name: str) -> None:
    """Put in place as installers do: whole, under another name first."""
    part = path.with_suffix(".part")
    part.write_text(f'#!/bin/sh\nCHAOS={name} exec {shlex.join(stage.engine_words)} "$@"\n')
    part.chmod(0o700)
    part.replace(path)


async def cut_model(stage: Stage) -> None:
    """The model file is cut short while it is mapped: SIGBUS. Then it is whole again."""
    folder = stage.folder / "cut"
    folder.mkdir()
    model = folder / "model.gguf"
    model.write_bytes(stage.model_file.read_bytes())
    subject = Subject(folder, stage.serving(["m"], path=str(model)))
    async with started(subject):
        await right(stage, subject, "m", "with the whole file")
        first = await subject.child("m")
        os.truncate(model, 4096)
        stage.report.faults["model file cut"] += 1
        for _ in range(3):
            outcome = await subject.ask("m", KINDS["chat stream"], 200)
            stage.report.count(outcome, "with a cut file")
            told = outcome.verdict is Verdict.ERROR
            stage.report.require(told, f"with a cut file: {outcome}")
        stage.report.require(not is_alive(first), "the child outlived its file")
        model.write_bytes(stage.model_file.read_bytes())
        await right(stage, subject, "m", "with the restored file")
        await clean_end(stage, subject, "a cut model")


async def own_death(stage: Stage) -> None:
    """kill -9 of llamasup while it loads, answers, and has a child that hangs; then a restart."""
    models = ["m", "n", "hung", "loading"]
    chance = stage.chance("own death")
    subject = Subject(stage.folder / "own-death", stage.serving(models))
    async with started(subject), trio.open_nursery() as nursery:
        for model in models[:3]:
            await right(stage, subject, model, "before the death")
        hung = await subject.child("hung")
        os.kill(hung, signal.SIGSTOP)
        loading = Request(subject.address, "loading", KINDS["chat"], LONGEST_CHAIN - 100)
        nursery.start_soon(loading.run)
        await subject.child("loading")
        await killed_under_load(stage, subject, ["m", "n"], chance, hung=[hung])
        await eventually(lambda: loading.outcome is not None)
        assert loading.outcome is not None
        stage.report.count_taken_down(loading.outcome, "kill -9 during a load")
        stage.report.require(is_alive(hung), "the hanging child ended by itself: nothing to sweep")
        await subject.start()
        for model in models:
            await right(stage, subject, model, "after the restart")
        stage.report.require(not is_alive(hung), "the hanging child was not swept")
        await clean_end(stage, subject, "after a restart")


async def slow_batches(stage: Stage) -> None:
    """One batch takes longer than all patience: who computes is not hung."""
    settings = stage.serving(
        ["m"], path=str(stage.slow_model), batch_size=16384, extra_args=["--ubatch-size", "512"]
    )
    subject = Subject(stage.folder / "slow", settings | {"recovery.stall_timeout": 1})
    async with started(subject):
        for kind in ("chat", "chat stream"):
            began = trio.current_time()
            outcome = await subject.ask("m", KINDS[kind], 3, _long(stage, kind))
            took = trio.current_time() - began
            stage.report.note(f"one batch took {took:.1f} s, and stall_timeout is 1 s")
            stage.report.count(outcome, "a slow batch")
            stage.report.require(outcome.verdict is Verdict.RIGHT, f"a slow batch: {outcome}")
            stage.report.require(took > 1.2, "the batch was not slow: nothing was shown")
        lives = len(subject.readies())
        stage.report.require(lives == 1, f"it was started {lives} times")
        stage.report.faults["a slow batch"] += 2
        await clean_end(stage, subject, "slow batches")


async def death_after_a_ping(stage: Stage) -> None:
    """A comment was all that the client had seen when the child died: it is asked once more."""
    settings = stage.serving(["m"], path=str(stage.slow_model), batch_size=16)
    subject = Subject(stage.folder / "ping", settings | {"recovery.stall_timeout": 20})
    async with started(subject):
        await right(stage, subject, "m", "before a death after a ping")
        kind = KINDS["pinged stream"]
        request = Request(subject.address, "m", kind, 3, _long(stage, "ping"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(request.run)
            await request.pinged()
            stage.report.require(not request.outcome, f"it ended unpinged: {request.outcome}")
            os.kill(await subject.child("m"), signal.SIGKILL)
        assert request.outcome is not None
        stage.report.count(request.outcome, "a death after a ping")
        answered = request.outcome.verdict is Verdict.RIGHT
        stage.report.require(answered, f"a death after a ping: {request.outcome}")
        stage.report.faults["a death after a ping"] += 1
        await clean_end(stage, subject, "a death after a ping")


def _long(stage: Stage, purpose: str) -> str:
    """A prompt that no cache knows."""
    return f"{stage.chance(purpose).getrandbits(64):x}" + "xy" * 7400


async def unusable_cache(stage: Stage) -> None:
    """Without a model it needs a cache for its demo; one that cannot be is a clear complaint."""
    folder = stage.folder / "cache"
    folder.mkdir()
    (folder / "file").touch()
    keys = {"folders.cache": folder / "file" / "cache", "folders.run": folder / "run"}
    flags = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [*LLAMASUP, "serve", "--engine", stage.engine, "--listen", "127.0.0.1:0", *flags],
            capture_stderr=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    words = done.stderr.decode()
    clear = done.returncode > 0 and "folders.cache" in words and "Traceback" not in words
    stage.report.require(clear, f"an unusable cache: exit status {done.returncode}, {words}")
    stage.report.faults["unusable cache"] += 1


Scenario = Callable[[Stage], Awaitable[None]]

SCENARIOS: dict[str, Scenario] = {
    "swift": swift_recovery,
    "ladder": down_the_ladder,
    "running-oom": out_of_memory_while_running,
    "full-disk": full_disk,
    "read-only-disk": read_only_disk,
    "cache": unusable_cache,
    "descriptors": no_descriptors,
    "engine": replaced_engine,
    "model": cut_model,
    "own-death": own_death,
    "slow-batches": slow_batches,
    "ping": death_after_a_ping,
}
