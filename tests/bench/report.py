"""Figures beside their targets: medians of rounds, ratios to nginx, the table and the JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

WAYS = ("direct", "nginx", "llamasup")


@dataclass(frozen=True)
class Target:
    """At most so much, of llamasup's value or of its ratio to nginx's."""

    of: Literal["value", "ratio"]
    most: float

    def __str__(self) -> str:
        return f"<= {self.most:g}" + ("x" if self.of == "ratio" else "")


@dataclass
class Figure:
    """One quantity, measured in several rounds on each way."""

    name: str
    unit: str
    target: Target | None = None
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, way: str, value: float) -> None:
        self.rounds.setdefault(way, []).append(value)

    def value(self, way: str) -> float | None:
        return median(self.rounds[way]) if self.rounds.get(way) else None

    @property
    def ratio(self) -> float | None:
        ours, theirs = self.value("llamasup"), self.value("nginx")
        return ours / theirs if ours is not None and theirs and theirs > 0 else None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; none where there is no target, or nothing to hold to it."""
        if not self.target:
            return None
        ours = self.ratio if self.target.of == "ratio" else self.value("llamasup")
        return None if ours is None else ours <= self.target.most

    def beyond_direct(self, name: str, target: Target | None = None) -> Figure:
        """What each way adds to the direct one, round by round, since noise comes in spells."""
        added = Figure(name, self.unit, target)
        for way in self.rounds.keys() - {"direct"}:
            pairs = zip(self.rounds[way], self.rounds.get("direct", []), strict=False)
            added.rounds[way] = [through - direct for through, direct in pairs]
        return added


def table(figures: Sequence[Figure]) -> str:
    """The figures as text, one a line."""
    heading = ["figure", "unit", *WAYS, "to nginx", "target", ""]
    rows = [heading, *(_row(figure) for figure in figures)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(_aligned, row, widths, range(len(row)))).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def write_json(path: Path, figures: Sequence[Figure], problems: Sequence[str]) -> None:
    machine = {"cpus": os.cpu_count(), "system": platform.platform(), "python": sys.version}
    document = {
        "machine": machine,
        "figures": [_as_json(figure) for figure in figures],
        "problems": list(problems),
    }
    path.write_text(json.dumps(document, indent=1) + "\n")


def _row(figure: Figure) -> list[str]:
    values = [_number(figure.value(way)) for way in WAYS]
    ratio = f"{figure.ratio:.1f}x" if figure.ratio is not None else ""
    verdict = {None: "", True: "met", False: "MISSED"}[figure.met]
    return [figure.name, figure.unit, *values, ratio, str(figure.target or ""), verdict]


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _aligned(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column < 2 or column > 5 else cell.rjust(width)


def _as_json(figure: Figure) -> dict[str, object]:
    return {
        "name": figure.name,
        "unit": figure.unit,
        "medians": {way: figure.value(way) for way in WAYS},
        "ratio_to_nginx": figure.ratio,
        "target": str(figure.target) if figure.target else None,
        "met": figure.met,
        "rounds": figure.rounds,
    }
