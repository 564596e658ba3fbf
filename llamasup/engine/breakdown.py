"""What the engine says about the memory it needs: a row of `--log-jsonl`, 20 ms after its start.

With `--fit on`, the default, llama-server computes this and says it before it loads anything.
Amounts are in MiB, rounded down.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

from llamasup.engine.memory_args import FIT, word_after
from llamasup.memory.readings import HOST
from llamasup.memory.room import Amounts

_FLAG: Final = "--log-jsonl"
_MIB: Final = 1 << 20


def can_be_asked(flags: Collection[str], args: Sequence[str]) -> bool:
    """Does an engine with these flags and arguments say what it needs before it loads the model?"""
    return _FLAG in flags and word_after(args, FIT) != "off"


def question(argv: Sequence[str]) -> Sequence[str]:
    """The command line that asks how much a child with this command line would take."""
    return [*argv, _FLAG]


def breakdown(line: str) -> Amounts | None:
    """How much the model takes of each device, by the engine's names of devices.

    None if the line does not say that.
    """
    if '"fit_memory_breakdown"' not in line:
        return None
    try:
        rows = json.loads(line)["data"]["rows"]
        return _by_device(rows)
    except (ValueError, TypeError, LookupError):
        return None


def _by_device(rows: list[dict[str, Any]]) -> Amounts:
    amounts = {row["name"]: _taken(row) for row in rows if row["kind"] == "device"}
    gpus = list(amounts)
    amounts[HOST] = 0
    for row in rows:
        if row["kind"] == "device":
            continue
        places = gpus if _is_split(row) and gpus else [HOST]
        for place in places:
            amounts[place] += _taken(row) // len(places)
    return amounts


def _taken(row: dict[str, Any]) -> int:
    return int(row["self"]) * _MIB


def _is_split(row: dict[str, Any]) -> bool:
    """Rows of tensors are spread over GPUs (`CUDA_Split`). All other extra buffers are the host's:
    `CPU_REPACK` holds weights in the order that is best for the processor."""
    return row["kind"] == "buffer_type" and str(row["name"]).endswith("_Split")
