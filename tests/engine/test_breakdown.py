"""The engine's word on its memory is read, device by device, and nothing else is taken for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.engine.breakdown import breakdown
from llamasup.memory.room import Amounts

LOGS = Path(__file__).parent / "logs"
MIB = 1 << 20


def heard(log: str) -> list[Amounts]:
    """The answers in a recorded log."""
    lines = (LOGS / f"{log}.txt").read_text().splitlines()
    return [amounts for line in lines if (amounts := breakdown(line)) is not None]


@pytest.mark.parametrize(
    ("log", "amounts"),
    [
        ("ready_jsonl", {"host": 5}),
        ("breakdown_repacked_jsonl", {"host": 799 + 135}),
        ("not_seen_here/breakdown_two_gpus_jsonl", {"CUDA0": 5012, "CUDA1": 4012, "host": 602}),
        (
            "not_seen_here/breakdown_split_by_rows_jsonl",
            {"CUDA0": 4812, "CUDA1": 4812, "host": 602},
        ),
    ],
)
def test_what_the_model_takes_is_heard_and_not_what_others_use(log: str, amounts: Amounts) -> None:
    assert heard(log)[0] == {device: size * MIB for device, size in amounts.items()}


@pytest.mark.parametrize("log", ["ready_text", "unknown_architecture_jsonl"])
def test_a_log_without_it_says_nothing(log: str) -> None:
    assert heard(log) == []


@pytest.mark.parametrize(
    "line",
    [
        '{"type":"fit_memory_breakdown"}',
        '{"type":"fit_memory_breakdown","data":{"rows":5}}',
        '{"type":"fit_memory_breakdown","data":{"rows":[{"kind":"host","name":"Host"}]}}',
        '{"type":"fit_memory_breakdown","data":{"rows":[{"kind":"host","self":"much"}]}}',
        '{"type":"fit_memory_breakdown","data":{"rows":[7]}}',
        '{"type":"fit_memory_breakdown","data":',
        '["fit_memory_breakdown"]',
        "7",
    ],
)
def test_a_row_that_is_cut_or_of_another_shape_is_no_answer(line: str) -> None:
    assert breakdown(line) is None


@given(st.text())
def test_no_line_is_too_strange(line: str) -> None:
    assert breakdown(f'"fit_memory_breakdown"{line}') is None
