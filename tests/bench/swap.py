"""A swap: what llamasup adds when one model has to go for another.

Two models, and room for one. Beside each swap through llamasup the very same is done by hand: the
one engine is stopped, the other one started, and asked as soon as it says that it listens.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.bench import clients
from tests.bench.cold import EngineCommand, started_by_hand
from tests.bench.measures import Bench
from tests.bench.proxies import Llamasup
from tests.bench.report import Figure, Target

MODELS = ("one", "other")


def swap(bench: Bench, name: str, llamasup: Llamasup) -> list[Figure]:
    """From the request for a model, while the other is loaded and idle, to its first byte."""
    first_byte = Figure(f"swap, {name}", "ms")
    two = replace(llamasup, models=MODELS, max_loaded=1)
    with bench.excusing("llamasup"), bench.fresh_llamasup(two) as way:
        _ask(way.address, MODELS[-1])
        for number in range(bench.pace.swap_rounds):
            first_byte.add("llamasup", _ask(way.address, MODELS[number % 2]) * 1000)
            command = EngineCommand.of_child(way)
            first_byte.add("direct", _swap_by_hand(command) * 1000)
    return [first_byte, first_byte.beyond_direct("  beyond the engines", Target("value", 40))]


def _ask(address: clients.Address, model: str) -> float:
    """Seconds from the request to the first event of its answer, which is heard to its end."""
    wishes = {"model": model, "max_tokens": 3, "bench": {"chunks": 3, "rate": 100}}
    with clients.connect(address) as sock:
        start = time.monotonic()
        sock.sendall(clients.completion(stream=True, **wishes))
        received = clients.wait_for_data(sock)
        seconds = time.monotonic() - start
        clients.wait_for_end(sock, received)
        return seconds


def _swap_by_hand(command: EngineCommand) -> float:
    """Seconds from the stop of one engine to the first event of the answer of the next."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        one, other = Path(folder) / "one.sock", Path(folder) / "other.sock"
        with started_by_hand(command, one) as engine:
            _ask(os.fspath(one), MODELS[0])
            start = time.monotonic()
            _stop_as_llamasup_does(engine)
        with started_by_hand(command, other):
            return time.monotonic() - start + _ask(os.fspath(other), MODELS[0])


def _stop_as_llamasup_does(engine: subprocess.Popen[bytes]) -> None:
    """Told to, and its stdin ended: in child mode one alone does not suffice."""
    engine.terminate()
    engine.communicate()
