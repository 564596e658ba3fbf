"""What a model must be for, so that it can answer at a path. Pure.

An engine would answer with an error that names a flag of its own, or with nonsense; and the model
would have to be loaded for that, perhaps in the place of another one.
"""

from __future__ import annotations

from typing import Final

from llamasup.apis.dialects import ENGINES
from llamasup.errors import ModelUnfit
from llamasup.models.purpose import Purpose

_DOES: Final = {
    Purpose.GENERATE: "writes texts",
    Purpose.EMBED: "embeds texts",
    Purpose.EMBED_ANYHOW: "embeds texts",
    Purpose.RERANK: "ranks texts",
}


def _wanted() -> dict[bytes, Purpose]:
    writing = {path: Purpose.GENERATE for dialect in ENGINES for path in dialect.stream_paths}
    others = [path for dialect in ENGINES for path in dialect.work_paths]
    embedding = {path: Purpose.EMBED for path in others if b"/embedding" in path}
    return writing | embedding | {path: Purpose.RERANK for path in others if b"/rerank" in path}


_WANTED: Final = _wanted()


def wanted_at(target: bytes) -> Purpose | None:
    """What an engine's model is used for at this target; None if that does not matter there."""
    return _WANTED.get(target.partition(b"?")[0])


def compare(model: str, purpose: Purpose | None, wanted: Purpose) -> None:
    """Raise ModelUnfit if a model for this purpose cannot do what is wanted."""
    if purpose in (None, wanted) or _DOES[purpose] == _DOES[wanted]:
        return
    raise ModelUnfit(
        f'the model "{model}" {_DOES[purpose]}, and this is for one that {_DOES[wanted]}: name'
        f' another model; or, if it can do that, write purpose = "{wanted.value}" in its table of'
        " llamasup.toml"
    )
