"""What fits becomes plain values, with words for people beside the numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llamasup import __version__
from llamasup.children.needs import Needed, Source
from llamasup.control.model_fits import document, in_words
from llamasup.memory.ladder import Rung
from llamasup.pool.admission import Decision, Drain, Evict, Load, Refuse, Wait
from llamasup.pool.fits import Fit, Prospect, Survey
from llamasup.states import KeeperState

GIB = 1 << 30
LOAD = Load()
NEEDED = Needed({"host": GIB // 4, "CUDA0": 20 * GIB}, Source.ENGINE)


def entry(outcome: Decision = LOAD, needed: Needed = NEEDED, fits: Rung | None = None) -> Any:
    prospect = Prospect(Rung(8192), needed, outcome)
    fit = Fit("m", KeeperState.UNLOADED, Path("/m.gguf"), "", GIB, 4096, prospect, prospect, fits)
    whole = document(Survey({"host": 2 * GIB}, [fit]))
    assert json.loads(json.dumps(whole)) == whole
    assert (whole["version"], whole["free"]) == (__version__, {"host": 2 * GIB})
    assert whole["free_text"] == "2.0 GiB"
    [model] = whole["models"]
    return model


def test_everything_of_a_model_is_told() -> None:
    prospect = {
        "rung": "context 8192",
        "context": 8192,
        "needs": {"host": GIB // 4, "CUDA0": 20 * GIB},
        "needs_text": "256 MiB + 20.0 GiB on CUDA0",
        "source": "engine",
        "evicts": [],
        "waits": False,
        "refused": None,
    }
    assert entry(fits=Rung(4096, "q8_0")) == {
        "name": "m",
        "state": "unloaded",
        "path": "/m.gguf",
        "program": None,
        "size": GIB,
        "size_text": "1.0 GiB",
        "max_context": 4096,
        "defect": None,
        "begins": prospect,
        "best": prospect,
        "fits": {"rung": "context 4096, cache type q8_0", "context": 4096},
    }


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Load(), ([], False, None)),
        (Evict(("a", "b")), (["a", "b"], False, None)),
        (Drain(("a",)), (["a"], True, None)),
        (Wait(), ([], True, None)),
        (Refuse(507, "too large"), ([], False, "too large")),
    ],
)
def test_what_it_takes_is_told(outcome: Decision, told: tuple[list[str], bool, str | None]) -> None:
    begins = entry(outcome)["begins"]
    assert (begins["evicts"], begins["waits"], begins["refused"]) == told


def test_a_defect_has_no_numbers_and_no_source() -> None:
    model = entry(needed=Needed({}, Source.HEADER, "cut off"))
    assert model["defect"] == "cut off"
    assert model["begins"]["source"] is None
    assert model["begins"]["needs_text"] == ""


def test_the_hosts_memory_comes_first_in_words() -> None:
    assert in_words({"CUDA0": GIB, "host": 5 << 20}) == "5 MiB + 1.0 GiB on CUDA0"
