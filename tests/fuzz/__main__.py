"""`python -m tests.fuzz`: mutated requests, and mutated answers of the engine.

No traceback, no fault of a client's called ours, nothing malformed to a client, and all is well
afterwards. It exits with 1 if anything is not so, and says how to repeat it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import trio
from attrs import Factory, define

from tests.chaos.subject import Subject, started
from tests.fuzz.mutants import ANSWERS, REQUESTS, mutants
from tests.fuzz.soundness import Answer, Malformed, answers
from tests.harness import FAKE

AT_ONCE = 200
PATIENCE = 30.0
_LONGEST = 2000
_WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_OF_CLIENTS = {200, 204, 501, *range(400, 500)}
_OF_ENGINES = {*range(200, 600)}


@define
class Findings:
    """What came back, and what should not have."""

    statuses: Counter[str] = Factory(Counter)
    problems: list[str] = Factory(list)

    def problem(self, words: str) -> None:
        self.problems.append(words := words[:_LONGEST])
        if len(self.problems) <= 20:
            print(f"  PROBLEM: {words}", flush=True)


async def fuzz(requests: int, answered: int, seed: int, folder: Path) -> Findings:
    """So many of both, against one llamasup with a stand-in for an engine."""
    findings = Findings()
    file = folder / "fake.gguf"
    file.write_bytes(b"GGUF" + bytes(20))
    of_each = {"path": str(file), "parallel": 16}
    settings = {
        "engine.command": FAKE,
        "server.head_timeout": 0.3,
        "server.body_timeout": 0.3,
        "server.idle_timeout": 0.3,
        "recovery.stall_timeout": 30,
        **{f"models.fake.{key}": value for key, value in of_each.items()},
        **{f"models.raw.{key}": value for key, value in of_each.items()},
        "models.fake.extra_args": ["--fake-echo"],
        "models.raw.extra_args": ["--fake-raw"],
        "server.default_model": "fake",
    }
    async with started(Subject(folder, settings)) as subject:
        for model in ("fake", "raw"):  # to look at it would load nothing
            if await _said(subject, _plain(model, _WELL)) != [200]:
                findings.problem(f"{model} does not answer")
        for name, count, seeds, one in (
            ("requests", requests, REQUESTS, _request),
            ("answers", answered, ANSWERS, _answer),
        ):
            began = time.monotonic()
            todo = islice(mutants(seeds, random.Random(f"{seed}/{name}")), count)
            await _all(todo, subject, findings, one)
            print(f"  {count} {name} in {time.monotonic() - began:.0f} s", flush=True)
        if await _said(subject, _plain("fake")) != [200]:
            findings.problem("it does not serve any more")
        if await subject.stop() != 0:
            findings.problem("it did not end well")
        if "Traceback" in subject.log:
            at = subject.log.index("Traceback")
            findings.problem(f"a traceback: {subject.log[at - 200 : at + 2000]}")
    return findings


_One = Callable[[Subject, bytes, Findings], Awaitable[None]]


async def _all(todo: Iterator[bytes], subject: Subject, findings: Findings, one: _One) -> None:
    async def some() -> None:
        for mutant in todo:
            await one(subject, mutant, findings)

    async with trio.open_nursery() as nursery:
        for _ in range(AT_ONCE):
            nursery.start_soon(some)


async def _request(subject: Subject, mutant: bytes, findings: Findings) -> None:
    for answer in await _sound(subject, mutant, mutant, findings):
        findings.statuses[f"request: {answer.status}"] += 1
        if answer.status not in _OF_CLIENTS:
            findings.problem(f"{answer.status} {answer.body[:300]!r} to {mutant!r}")
        if not answer.whole:
            findings.problem(f"a cut answer to {mutant!r}")


async def _answer(subject: Subject, mutant: bytes, findings: Findings) -> None:
    got = await _sound(subject, _plain("raw", mutant), mutant, findings)
    for answer in got:
        findings.statuses[f"answer: {answer.status}"] += 1
        if answer.status not in _OF_ENGINES:
            findings.problem(f"status {answer.status} of {mutant!r}")
    if len(got) > 1:
        findings.problem(f"{len(got)} answers of {mutant!r}")


async def _sound(
    subject: Subject, request: bytes, mutant: bytes, findings: Findings
) -> list[Answer]:
    try:
        return list(answers(await _exchanged(subject, request)))
    except Malformed as error:
        findings.problem(f"{error}, of {mutant!r}")
    except trio.TooSlowError:
        findings.problem(f"no end within {PATIENCE:g} s, of {mutant!r}")
    return []


async def _said(subject: Subject, request: bytes) -> list[int]:
    return [answer.status for answer in answers(await _exchanged(subject, request))]


def _plain(model: str, raw: bytes = b"") -> bytes:
    document = {"model": model, "raw": raw.decode("latin-1"), "n_predict": 1}
    body = json.dumps(document).encode()
    lines = [b"POST /completion HTTP/1.1", b"Host: a", b"Connection: close"]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


async def _exchanged(subject: Subject, data: bytes) -> bytes:
    """All that comes back until the connection ends, however it does."""
    got = bytearray()
    with trio.fail_after(PATIENCE):
        stream = await trio.open_tcp_stream(subject.address.host, subject.address.port)
        async with stream:
            with suppress(trio.BrokenResourceError):
                await stream.send_all(data)
            with suppress(trio.BrokenResourceError):
                async for part in stream:
                    got += part
    return bytes(got)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=200_000, metavar="N")
    parser.add_argument("--answers", type=int, default=20_000, metavar="N")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), metavar="N")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        findings = trio.run(fuzz, options.requests, options.answers, options.seed, Path(folder))
    for status, count in sorted(findings.statuses.items()):
        print(f"{status}  {count}")
    print(f"{len(findings.problems)} problems")
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
