"""Where a run takes place: its engine, its seed, its scratch folder, its figures."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from random import Random

from attrs import frozen

from llamasup.engine.locate import EMBEDDED
from tests.chaos.load import LONGEST_CHAIN
from tests.chaos.report import Report
from tests.harness import counting_model

_WIDE = 1 << 18


@frozen
class Stage:
    """What everything that happens in a run has in common."""

    engine: str
    seed: int
    folder: Path
    report: Report

    def chance(self, *purpose: object) -> Random:
        """The seed's own dice for one purpose."""
        return Random("/".join(map(str, (self.seed, *purpose))))

    @property
    def engine_words(self) -> list[str]:
        """The engine's command line, for other commands to be put before it."""
        return [*EMBEDDED.command] if self.engine == "embedded" else shlex.split(self.engine)

    @property
    def model_file(self) -> Path:
        """The counting model."""
        return self.written("count.gguf", up_to=LONGEST_CHAIN)

    def written(self, name: str, up_to: int) -> Path:
        """A counting model of one's own: it counts so far, and weighs 512 bytes a number."""
        path = self.folder / name
        return path if path.exists() else counting_model(path, up_to=up_to)

    @property
    def slow_model(self) -> Path:
        """A counting model that takes some seconds to read a long prompt."""
        path = self.folder / "slow.gguf"
        return path if path.exists() else counting_model(path, up_to=300, hidden=_WIDE)

    def serving(self, models: Sequence[str], **settings: object) -> dict[str, object]:
        """A configuration of models that all count; `settings` are those of each."""
        of_each = {
            "path": str(self.model_file),
            "context_size": 32768,
            "parallel": 2,
            # Two compute threads wait for each other at every token, long on a busy machine.
            "threads": 1,
            # Small steps: a prefill takes its time.
            "batch_size": 64,
            **settings,
        }
        return {"engine.command": self.engine} | {
            f"models.{model}.{key}": value for model in models for key, value in of_each.items()
        }
