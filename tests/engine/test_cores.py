"""Engines that may compute beside others are told to sleep while their threads wait."""

from __future__ import annotations

import pytest

from llamasup.config.load import load
from llamasup.engine.cores import sharing

SLEEP = {"OMP_WAIT_POLICY": "passive"}
TWO = {"models.a.path": "/a.gguf", "models.b.path": "/b.gguf"}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"models.a.path": "/a.gguf"}, {}),
        (TWO, SLEEP),
        ({**TWO, "pool.max_loaded_models": 1}, {}),
        ({**TWO, "pool.max_loaded_models": 2}, SLEEP),
        ({"models.a.path": "/a.gguf", "discover.folders": ["/models"]}, SLEEP),
        ({**TWO, "models.a.threads": 4}, {}),
        ({**TWO, "models.b.threads": 4}, SLEEP),
    ],
    ids=str,
)
def test_threads_sleep_only_where_another_child_may_compute(
    config: dict[str, object], said: dict[str, str]
) -> None:
    loaded = load(None, {}, config)
    model = loaded.models["a"]
    assert sharing(loaded, model) == said
