"""CPU time of what is read and sorted again and again, in the bench's own process.

Tests bound how many steps of Python that takes; only a clock sees what C does within one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path, PurePosixPath

from llamasup.config.schema import ModelSettings
from llamasup.engine.loglines import LogReader
from llamasup.errors import ModelNotFound
from llamasup.models.discover import Found, models_in
from llamasup.models.gguf import read_header
from llamasup.models.names import Names
from tests.bench.measures import Bench
from tests.bench.report import Figure, Target
from tests.models.shapes import gguf_head

TOKENS = 200_000
LINES = 20_000
FILES = 4000
MODELS = 2000
_CHATTER = b"slot handle_last_: id  0 | task 0 | slot decode token, id=260, n_ctx = 2048\n"


def reading(bench: Bench) -> list[Figure]:
    """A large header, a flood of log lines, a large folder, and a name that nothing has."""
    figures = []
    for name, most, deed in (
        (f"header of {TOKENS} tokens", 150, _header()),
        (f"{LINES} log lines", 800, lambda: LogReader().feed(_CHATTER * LINES)),
        (f"names for {FILES} files", 2000, _folder()),
        (f"unknown name among {MODELS}", 5, _unknown_name()),
    ):
        figure = Figure(name, "ms", Target("value", most))
        for _ in range(bench.pace.rounds):
            figure.add("llamasup", _seconds(deed) * 1e3)
        figures.append(figure)
    return figures


def _seconds(deed: Callable[[], object]) -> float:
    before = time.thread_time()
    deed()
    return time.thread_time() - before


def _header() -> Callable[[], object]:
    tokens = [f"token{number}" for number in range(TOKENS)]
    content = gguf_head({"tokens": tokens, "merges": tokens, "scores": [0.0] * TOKENS}, [])
    return lambda: read_header(BytesIO(content))


def _folder() -> Callable[[], object]:
    paths = [PurePosixPath(f"m{number}-Q4_0.gguf") for number in range(FILES)]
    files = [Found(Path("/models"), path, size=10) for path in paths]
    return lambda: models_in(files)


def _unknown_name() -> Callable[[], object]:
    models = [f"some-model-{number}-7b-instruct.Q4_K_M" for number in range(MODELS)]
    names = Names({model: ModelSettings(path=Path(f"{model}.gguf")) for model in models})

    def refuse() -> None:
        with suppress(ModelNotFound):
            names.choose("some-moddel-77-7b")

    return refuse
