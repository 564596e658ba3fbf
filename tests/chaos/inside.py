"""llamasup's own program, which also tells how many trio tasks it has.

`python -m tests.chaos.inside FILE serve …` is `llamasup serve …`; at each SIGUSR1 it writes the
number to FILE. Everything else about a process can be seen from outside.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import trio

from llamasup.cli import main


def tell_at_signal(file: Path) -> None:
    def tell(*_: object) -> None:
        part = file.with_suffix(".part")
        part.write_text(str(trio.lowlevel.current_statistics().tasks_living))
        part.replace(file)

    signal.signal(signal.SIGUSR1, tell)


if __name__ == "__main__":
    tell_at_signal(Path(sys.argv.pop(1)))
    sys.exit(main())
