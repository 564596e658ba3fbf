"""What a run has shown: its figures, its problems, and how to repeat it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from statistics import median

from attrs import Factory, define

from tests.chaos.load import Outcome, Verdict

RECOVERY_TARGET = 0.060
"""Seconds from a death to the next child's readiness, less the engine's own load time."""

_UNFORGIVABLE = (Verdict.BROKEN, Verdict.LOST, Verdict.WRONG)


@define
class Report:
    """All figures of a run. It has passed if nothing was lost, wrong, orphaned or broken."""

    outcomes: Counter[Verdict] = Factory(Counter)
    taken_down: int = 0
    """Requests whose connection broke because llamasup itself was killed."""

    faults: Counter[str] = Factory(Counter)
    restarts: int = 0
    orphans: int = 0
    recoveries: list[float] = Factory(list)
    """Times from death to ready, less the engine's own load time."""

    notes: list[str] = Factory(list)
    problems: list[str] = Factory(list)

    def count(self, outcome: Outcome, about: str) -> None:
        """One request has ended."""
        self.outcomes[outcome.verdict] += 1
        if outcome.verdict in _UNFORGIVABLE:
            self.problem(f"{about}: {outcome}")

    def count_taken_down(self, outcome: Outcome, about: str) -> None:
        """One request has ended, with its llamasup perhaps, which was killed."""
        if outcome.verdict is Verdict.BROKEN:
            self.taken_down += 1
        else:
            self.count(outcome, about)

    def require(self, fact: object, otherwise: str) -> None:
        """Something that has to be so."""
        if not fact:
            self.problem(otherwise)

    def problem(self, words: str) -> None:
        """Something that must not be."""
        self.problems.append(words)
        print(f"  PROBLEM: {words}", flush=True)

    def note(self, words: str) -> None:
        """Something worth knowing."""
        self.notes.append(words)
        print(f"  {words}", flush=True)

    def orphaned(self, pids: Iterable[int], about: str) -> None:
        """These processes have outlived their llamasup."""
        for pid in pids:
            self.orphans += 1
            self.problem(f"{about}: process {pid} is an orphan")

    def __str__(self) -> str:
        lines = [
            ("requests sent", f"{sum(self.outcomes.values()) + self.taken_down}"),
            *((verdict.value, f"{self.outcomes[verdict]}") for verdict in Verdict),
            ("broken with llamasup itself", f"{self.taken_down}"),
            ("faults injected", f"{self.faults.total()}"),
            *((f"  {name}", f"{count}") for name, count in sorted(self.faults.items())),
            ("restarts", f"{self.restarts}"),
            ("orphans", f"{self.orphans}"),
            ("death to ready, less own load", self._recovery()),
        ]
        width = max(len(name) for name, _ in lines)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)

    def _recovery(self) -> str:
        if not self.recoveries:
            return "not measured"
        middle = median(self.recoveries)
        return (
            f"median {middle * 1000:.0f} ms, worst {max(self.recoveries) * 1000:.0f} ms"
            f" of {len(self.recoveries)} (target {RECOVERY_TARGET * 1000:g} ms:"
            f" {'met' if middle <= RECOVERY_TARGET else 'MISSED'})"
        )
