"""The schema by itself: what its tables refuse, and that its words reach the operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest

from llamasup.config.problems import Unfit
from llamasup.config.schema import Config, EngineSettings, ModelSettings, Server


@pytest.mark.parametrize(
    ("table", "key", "refused"),
    [
        (Server, "max_connections", 0),
        (Server, "max_head", 0),
        (Server, "max_body", 0),
        (Server, "head_timeout", 0),
        (Server, "body_timeout", 0),
        (Server, "send_timeout", 0),
        (EngineSettings, "port_range_start", -1),
        (EngineSettings, "port_range_start", 65536),
        (EngineSettings, "load_timeout", 0),
        (ModelSettings, "context_size", 0),
        (ModelSettings, "parallel", 0),
        (ModelSettings, "gpu_layers", -2),
        (ModelSettings, "threads", 0),
        (ModelSettings, "batch_size", 0),
    ],
)
def test_a_value_out_of_range_is_refused(table: type[Any], key: str, refused: int) -> None:
    required = {"path": Path("m.gguf")} if table is ModelSettings else {}
    with pytest.raises(Unfit, match=rf"^{refused} .+; write "):
        table(**required, **{key: refused})


@pytest.mark.parametrize(
    ("key", "least"),
    [("context_size", 1), ("parallel", 1), ("gpu_layers", -1), ("threads", 1), ("batch_size", 1)],
)
def test_the_least_number_of_a_model_key_is_accepted(key: str, least: int) -> None:
    settings: dict[str, Any] = {key: least}
    assert getattr(ModelSettings(path=Path("m.gguf"), **settings), key) == least


def test_one_listen_address_is_a_list_of_one() -> None:
    assert Server(listen=":1").listen == (":1",)
    assert Server(listen=[":1", ":2"]).listen == (":1", ":2")


def test_a_table_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Config().server.default_model = "x"  # type: ignore[misc]
