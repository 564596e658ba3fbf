"""STUB, replaced by the merge."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen


@frozen
class Needed:
    """x"""

    amounts: Mapping[str, int] = field(factory=dict)
    defect: str = ""
