"""llamasup's own program, which also measures how long any task has held up its event loop.

`python -m tests.bench.inside FILE serve …` is `llamasup serve …`; at each SIGUSR1 it writes to FILE
how many seconds of CPU the longest step since the last one took, and whose it was.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import trio

from llamasup.cli import main
from tests.harness import Holdups


def tell_at_signal(file: Path, holdups: Holdups) -> None:
    def tell(*_: object) -> None:
        part = file.with_suffix(".part")
        part.write_text(json.dumps(holdups.taken()))
        part.replace(file)

    signal.signal(signal.SIGUSR1, tell)


def observed(run: Any, holdups: Holdups) -> Any:
    return lambda *args, **kwargs: run(*args, **kwargs, instruments=[holdups])


if __name__ == "__main__":
    watching = Holdups()
    tell_at_signal(Path(sys.argv.pop(1)), watching)
    trio.run = observed(trio.run, watching)
    sys.exit(main())
