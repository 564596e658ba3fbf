"""`python -m tests.chaos`: faults on purpose, and whether anybody lost anything by them."""

from __future__ import annotations

import argparse
import random
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import trio

from tests.chaos.campaign import campaign
from tests.chaos.mixed import mixed
from tests.chaos.report import Report
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.stage import Stage
from tests.conftest import ENGINES

PARTS = [*SCENARIOS, "campaign", "mixed"]


def main() -> int:
    options = _options()
    parts = SCENARIOS | {
        "campaign": partial(campaign, faults=options.faults),
        "mixed": partial(mixed, minutes=options.minutes),
    }
    chosen = {name: parts[name] for name in options.only}
    engines = options.engine or list(ENGINES.values())
    passed = [_passes(engine, options.seed, chosen) for engine in engines]
    if not all(passed):
        print(f"\nFAILED. To repeat it:\n\n    {_command(options, engines)}\n")
    return 0 if all(passed) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), metavar="N")
    parser.add_argument("--faults", type=int, default=1000, metavar="N", help="in the campaign")
    parser.add_argument("--minutes", type=float, default=30, metavar="M", help="of mixed load")
    parser.add_argument(
        "--only", type=_part_names, default=PARTS, metavar="NAMES", help=",".join(PARTS)
    )
    parser.add_argument(
        "--engine",
        action="append",
        metavar="COMMAND",
        help="embedded, or a llama-server (may be repeated; default: every one that is there)",
    )
    return parser.parse_args()


def _part_names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(PARTS):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(PARTS)}")
    return names


def _command(options: argparse.Namespace, engines: list[str]) -> str:
    words = ["python", "-m", "tests.chaos", "--seed", str(options.seed)]
    words += ["--faults", str(options.faults), "--minutes", f"{options.minutes:g}"]
    words += ["--only", ",".join(options.only)]
    return shlex.join([*words, *(word for engine in engines for word in ("--engine", engine))])


def _passes(engine: str, seed: int, parts: Mapping[str, Scenario]) -> bool:
    """Run the parts on one engine, and print what came of them."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    stage = Stage(engine, seed, folder, Report())
    print(f"\n{engine}, seed {seed}")
    for name, part in parts.items():
        print(f"- {name}", flush=True)
        began = time.monotonic()
        try:
            trio.run(part, stage)
        except Exception as error:
            stage.report.problem(f"{name}: {''.join(traceback.format_exception(error))}")
        print(f"  {time.monotonic() - began:.1f} s", flush=True)
    print(f"\n{stage.report}\n")
    for problem in stage.report.problems:
        print(f"PROBLEM: {problem}")
    if stage.report.problems:
        print(f"The logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return not stage.report.problems


if __name__ == "__main__":
    sys.exit(main())
