"""The fuzz in its short form, with dice of its own each time: `python -m tests.fuzz` is longer."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.soundness import Malformed, answers


async def test_mutants_of_requests_and_answers_do_no_harm() -> None:
    seed = random.randrange(1_000_000)
    print(f"python -m tests.fuzz --requests 2000 --answers 500 --seed {seed}")
    # Not pytest's own folder: the paths of Unix sockets must be short.
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        findings = await fuzz(2000, 500, seed, Path(folder))
    assert findings.problems == []
    assert findings.statuses["request: 200"] > 100
    assert findings.statuses["request: 400"] > 100
    assert findings.statuses["answer: 200"] > 50


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \x1b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 999 X\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP",
    ],
)
def test_what_is_malformed_is_found(data: bytes) -> None:
    with pytest.raises(Malformed):
        list(answers(data))
