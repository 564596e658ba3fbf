"""The models as clients see them: in the form of llama-server's router, which is OpenAI's with more
in it, and in Anthropic's. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen

from llamasup.access.headers import Headers
from llamasup.config.schema import Offer
from llamasup.models.profile import Profile
from llamasup.models.purpose import Purpose
from llamasup.states import KeeperState

Document = dict[str, Any]

_STATUS: Final = {
    KeeperState.UNLOADED: "unloaded",
    KeeperState.LOADING: "loading",
    KeeperState.WAITING: "loading",
    KeeperState.OVERTAKEN: "loading",
    KeeperState.READY: "loaded",
    KeeperState.LEAVING: "loaded",
    KeeperState.FAILED: "failed",
}
_PART: Final = "text_model"
"""What llama-server calls the part of a model that is loaded first, and takes the longest."""

_OUTPUTS: Final = {
    Purpose.GENERATE: "text",
    Purpose.EMBED: "embeddings",
    Purpose.EMBED_ANYHOW: "embeddings",
    Purpose.RERANK: "rerank",
}


@frozen
class Standing:
    """How a model stands at this moment."""

    state: KeeperState
    progress: float | None = None
    """How much of it is loaded, from 0 to 1, if it loads and the engine says so."""

    failure: str = ""
    """Why it could not be loaded."""

    asleep: bool = False
    """Has its engine freed it while nobody asks?"""


@frozen
class Listed:
    """All that is listed of a model, or of a variant of one."""

    name: str
    aliases: tuple[str, ...]
    settings: Offer
    standing: Standing
    profile: Profile | None
    """What its file says; None if that is not known yet."""

    projector: Profile | None
    """What the file of its projector says, if it has one."""

    context: int | None
    """Tokens for all slots together, of the child if there is one."""

    best_context: int | None
    """The same of the best rung."""

    slots: int
    configured: bool

    @property
    def defect(self) -> str:
        """Why no engine can load it; "" if one may be able to, or if that is not known yet."""
        return self.profile.defect if self.profile else ""


def in_a_word(state: KeeperState) -> str:
    """A keeper's state in the words of llama-server's router."""
    return _STATUS[state]


def status(standing: Standing) -> Document:
    """A model's status, as llama-server's router writes it; but why it failed is told, too."""
    document: Document = {"value": in_a_word(standing.state)}
    if standing.asleep and standing.state is KeeperState.READY:
        document["value"] = "sleeping"
    if standing.state is KeeperState.WAITING:
        document["waits_for"] = "room"
    if document["value"] == "loading" and standing.progress is not None:
        value = round(standing.progress, 3)
        document["progress"] = {"stages": [_PART], "current": _PART, "value": value}
    if standing.state is KeeperState.FAILED:
        document |= {"failed": True, "why": standing.failure}
    return document


def entry(listed: Listed, created: int) -> Document:
    """One model in the form of llama-server's router."""
    settings, profile = listed.settings, listed.profile
    document: Document = {
        "id": listed.name,
        "object": "model",
        "created": created,
        "owned_by": settings.owner,
        "aliases": list(listed.aliases),
        "status": _status_of(listed),
        "source": "configured" if listed.configured else "discovered",
        "can_remove": False,
        "architecture": _architecture(listed),
        "context": listed.context,
        "max_context": profile and profile.trained_context,
        "context_length": _context_length(listed),
        "meta": profile and _meta(listed, profile),
    }
    extras = {
        "name": settings.name,
        "description": settings.description,
        "metadata": dict(settings.metadata),
        "defect": listed.defect,
    }
    return document | {key: value for key, value in extras.items() if value}


def _status_of(listed: Listed) -> Document:
    if listed.defect and listed.standing.state is KeeperState.UNLOADED:
        return status(Standing(KeeperState.FAILED, failure=listed.defect))
    return status(listed.standing)


def _architecture(listed: Listed) -> Document:
    inputs, projector = ["text"], listed.projector or Profile()
    inputs += [
        kind for kind, is_in in (("image", projector.sees), ("audio", projector.hears)) if is_in
    ]
    purpose = listed.profile.purpose if listed.profile else Purpose.GENERATE
    return {"input_modalities": inputs, "output_modalities": [_OUTPUTS[purpose]]}


def _context_length(listed: Listed) -> int | None:
    """The context of one request: of the child, or else the most that it can become."""
    trained = listed.profile.trained_context if listed.profile else None
    whole = listed.context or listed.best_context
    each = whole // listed.slots if whole else None
    return min(filter(None, (each, trained)), default=None)


def _meta(listed: Listed, profile: Profile) -> Document | None:
    loaded = listed.context and listed.context // listed.slots
    known = {
        "vocab_type": profile.vocabulary_type,
        "n_vocab": profile.vocabulary,
        "n_ctx": loaded,
        "n_ctx_train": profile.trained_context,
        "n_embd": profile.width,
        "n_params": profile.parameters,
        "size": profile.size or None,
    }
    return {key: value for key, value in known.items() if value is not None} or None


# --- Anthropic's form ---


def is_for_anthropic(headers: Headers) -> bool:
    """Does this client speak Anthropic's API? Its clients say which version of it they know."""
    return any(name == b"anthropic-version" for name, _ in headers)


def anthropic_entry(listed: Listed, created_at: str) -> Document:
    """One model in Anthropic's form; the time is RFC 3339."""
    return {
        "type": "model",
        "id": listed.name,
        "display_name": listed.settings.name or listed.name,
        "created_at": created_at,
    }


def anthropic_list(entries: Sequence[object], models: Sequence[str]) -> Document:
    """The whole list in Anthropic's form: always one page, whatever `limit` was asked for."""
    return {
        "data": entries,
        "has_more": False,
        "first_id": models[0] if models else None,
        "last_id": models[-1] if models else None,
    }
