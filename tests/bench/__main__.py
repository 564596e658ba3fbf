"""`python -m tests.bench`: measures what llamasup costs, beside nginx and beside nothing."""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.bench import clients, cold, decisions, hostile, measures, reading, swap
from tests.bench.measures import CLIENT_PROCESSES, FULL, QUICK, Bench, Measure
from tests.bench.proxies import Llamasup, Way, nginx, reference_engine
from tests.bench.report import Figure, table, write_json

MEASURES: dict[str, Measure] = {
    "latency": measures.latency,
    "cpu": measures.cpu,
    "chunks": measures.chunks,
    "thousand": measures.thousand,
    "idle": measures.idle,
    "listening": measures.listening,
    "cold": lambda bench: cold.cold_start(bench, "canned engine", bench.llamasup),
    "swap": lambda bench: swap.swap(bench, "canned engine", bench.llamasup),
    "decisions": decisions.decisions,
    "reading": reading.reading,
    "hostile": hostile.hostile,
}
REAL = {"cold": cold.cold_start, "swap": swap.swap}
"""Those that are worth measuring with a real engine, too."""


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))
    _raise_file_limit()
    with _bench(options) as bench:
        figures = [figure for name in options.only for figure in _measured(bench, name)]
        if options.engine:
            real = Llamasup(bench.llamasup.command, options.engine, options.model, parallel=1)
            for name in filter(REAL.__contains__, options.only):
                figures += REAL[name](bench, "real engine", real)
    print(table(figures))
    for problem in bench.problems:
        print(f"\nPROBLEM: {problem}")
    if options.json:
        write_json(options.json, figures, bench.problems)
    return 1 if bench.problems else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few short rounds, for CI")
    parser.add_argument(
        "--only", type=_measure_names, default=list(MEASURES), help=",".join(MEASURES)
    )
    parser.add_argument(
        "--guarded", action="store_true", help="with a key, its limits and a filter of params"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round there")
    parser.add_argument(
        "--engine", help="a real llama-server for cold start and swap; with --model"
    )
    parser.add_argument("--model", type=lambda text: Path(text).absolute(), metavar="GGUF")
    parser.add_argument(
        "--llamasup-command", type=shlex.split, default=[sys.executable, "-m", "llamasup"]
    )
    options = parser.parse_args()
    if bool(options.engine) != bool(options.model):
        parser.error("--engine and --model go together")
    if options.engine:
        options.engine = shutil.which(options.engine) or parser.error("no such --engine")
        options.engine = str(Path(options.engine).absolute())
    return options


def _measure_names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - MEASURES.keys():
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(MEASURES)}")
    return names


@contextlib.contextmanager
def _bench(options: argparse.Namespace) -> Iterator[Bench]:
    """Engine, proxies and client processes, all up for the whole run and stopped at its end."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        crowd = ProcessPoolExecutor(
            CLIENT_PROCESSES, multiprocessing.get_context("spawn"), initializer=clients.prepare
        )
        stack.enter_context(crowd)
        # Workers start when there is more to do than workers; the first round shall find them all.
        crowd.map(time.sleep, [0.2] * CLIENT_PROCESSES)
        direct, engine = stack.enter_context(reference_engine(folder))
        llamasup = Llamasup(options.llamasup_command, guarded=options.guarded)
        bench = Bench([direct], llamasup, crowd, QUICK if options.quick else FULL)
        _join(bench, "nginx", nginx(folder, engine, direct.engine_pids), stack)
        _join(bench, "llamasup", llamasup.serving(folder), stack)
        yield bench


def _join(
    bench: Bench,
    name: str,
    starting: contextlib.AbstractContextManager[Way],
    stack: contextlib.ExitStack,
) -> None:
    """Starts a proxy and sees it answer; without it the bench goes on."""
    with bench.excusing(name):
        way = stack.enter_context(starting)
        bench.crowd.submit(clients.one_client, way.address, 0.2).result()
        bench.ways.append(way)


def _measured(bench: Bench, name: str) -> list[Figure]:
    print(f"measuring {name} ...", file=sys.stderr)
    return MEASURES[name](bench)


def _raise_file_limit() -> None:
    """A thousand streams are two thousand sockets in a proxy, which inherits this limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
