"""The answer of `/modelFits`: what fits, as a document of plain values. Pure.

Amounts are bytes by device. Each is there again under `…_text`, for people to read.
"""

from __future__ import annotations

from typing import Any

from llamasup import __version__
from llamasup.config.units import rounded_size
from llamasup.memory.ladder import Rung
from llamasup.memory.readings import HOST
from llamasup.memory.room import Amounts
from llamasup.pool.admission import Drain, Evict, Refuse, Wait
from llamasup.pool.fits import Fit, Prospect, Survey


def document(survey: Survey) -> dict[str, Any]:
    """The whole document."""
    return opening(survey) | {"models": [entry(fit) for fit in survey.fits]}


def opening(survey: Survey) -> dict[str, Any]:
    """The part of the document before the models."""
    return {
        "version": __version__,
        "free": dict(survey.free),
        "free_text": in_words(survey.free),
    }


def in_words(amounts: Amounts) -> str:
    """`"1.2 GiB + 20.1 GiB on CUDA0"`, with the host's amount first."""
    by_device = sorted(amounts.items(), key=lambda amount: amount[0] != HOST)
    return " + ".join(
        rounded_size(size) + ("" if device == HOST else f" on {device}")
        for device, size in by_device
    )


def entry(fit: Fit) -> dict[str, Any]:
    """The part of the document about one model."""
    return {
        "name": fit.model,
        "state": fit.state.shown,
        "path": fit.path and str(fit.path),
        "program": fit.program or None,
        "size": fit.size,
        "size_text": rounded_size(fit.size),
        "max_context": fit.trained_context,
        "defect": fit.best.needed.defect or None,
        "begins": _prospect(fit.begins),
        "best": _prospect(fit.best),
        "fits": fit.largest and _rung(fit.largest),
    }


def _prospect(prospect: Prospect) -> dict[str, Any]:
    needed, outcome = prospect.needed, prospect.outcome
    return {
        **_rung(prospect.rung),
        "needs": dict(needed.amounts),
        "needs_text": in_words(needed.amounts),
        "source": None if needed.defect else needed.source.value,
        "evicts": list(outcome.victims) if isinstance(outcome, Evict | Drain) else [],
        "waits": isinstance(outcome, Drain | Wait),
        "refused": outcome.reason if isinstance(outcome, Refuse) else None,
    }


def _rung(rung: Rung) -> dict[str, Any]:
    return {"rung": str(rung), "context": rung.context}
