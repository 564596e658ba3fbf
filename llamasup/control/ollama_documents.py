"""What Ollama's clients are told about models, as documents of plain values. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from attrs import frozen

from llamasup import __version__
from llamasup.apis.ollama_models import VERSION
from llamasup.memory.readings import HOST
from llamasup.memory.room import Amounts
from llamasup.models.facts import Facts, in_words
from llamasup.models.gguf import Elided, Header, Value
from llamasup.models.purpose import Purpose

Document = dict[str, Any]

_NEVER: Final = 4_102_444_800.0
"""2100, in seconds since 1970: when models expire that are never unloaded for idling."""


def version() -> Document:
    """The version of Ollama whose API this is, and ours."""
    return {"version": VERSION, "llamasup": __version__}


def tag(name: str, facts: Facts | None) -> Document:
    """A model in the listing. What its header has not told yet is left empty."""
    return {
        "name": name,
        "model": name,
        "modified_at": moment(facts.modified if facts else 0.0),
        "size": facts.size if facts else 0,
        "digest": _digest(name, facts),
        "details": details(facts),
    }


def details(facts: Facts | None) -> Document:
    """What the listing says about the model itself."""
    family = facts.architecture if facts else ""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family] if family else [],
        "parameter_size": in_words(facts.parameters) if facts else "",
        "quantization_level": facts.quantization if facts else "",
    }


def _digest(name: str, facts: Facts | None) -> str:
    """A name for this state of the file. It is no digest of the content, which takes minutes."""
    state = (name, facts and (facts.size, facts.modified))
    return sha256(repr(state).encode(errors="replace")).hexdigest()


def moment(seconds: float) -> str:
    """A time, in seconds since 1970, as RFC 3339 has it. Files may claim any."""
    return (
        datetime.fromtimestamp(min(max(seconds, 0), _NEVER), UTC).isoformat().replace("+00:00", "Z")
    )


@frozen
class Loaded:
    """A model in memory."""

    holds: Amounts
    """The memory that it takes, by device."""

    context: int | None
    expires: float | None
    """When it is unloaded if nobody uses it, in seconds since 1970."""


def running(name: str, facts: Facts | None, loaded: Loaded) -> Document:
    """A model among those that are loaded."""
    on_devices = {device: size for device, size in loaded.holds.items() if device != HOST}
    return {
        **tag(name, facts),
        "size": sum(loaded.holds.values()),
        "size_vram": sum(on_devices.values()),
        "context_length": loaded.context or 0,
        "expires_at": moment(_NEVER if loaded.expires is None else loaded.expires),
    }


@frozen
class Shown:
    """All that is known of one model."""

    facts: Facts | None
    header: Header | None
    template: str
    projector: Header | None
    """The header of the file with which it sees or hears, if it has one."""

    purpose: Purpose | None
    """What it is for; None if that is not known."""

    context: int | None
    """The context with which it is loaded, if it is."""


ELSEWHERE: Final = Shown(
    facts=None, header=None, template="", projector=None, purpose=None, context=None
)
"""A model that only instances elsewhere have: they know more, and are not asked."""


def shown(model: Shown) -> Document:
    """Everything about one model."""
    metadata = model.header.metadata if model.header else {}
    license = metadata.get("general.license")
    parameters = {"general.parameter_count": model.facts.parameters} if model.facts else {}
    return {
        "license": license if isinstance(license, str) else "",
        "modelfile": "# This model is served by llamasup, which has no Modelfiles.\n",
        "parameters": f"num_ctx {model.context}" if model.context else "",
        "template": model.template,
        "details": details(model.facts),
        "model_info": {**{key: _plain(value) for key, value in metadata.items()}, **parameters},
        "capabilities": capabilities(model),
        "modified_at": moment(model.facts.modified if model.facts else 0.0),
    }


def _plain(value: Value) -> object:
    """A value as JSON has it; null for what was not read."""
    if isinstance(value, Elided):
        return None
    return list(value) if isinstance(value, tuple) else value


_FILL_IN: Final = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")
_TOOLS: Final = re.compile(r"\btools\b")
_THINKING: Final = re.compile(r"enable_thinking|reasoning_content|reasoning_effort|<think>")


def capabilities(model: Shown) -> Sequence[str]:
    """What the model can do, as its header and its projector tell."""
    match model.purpose:
        case Purpose.EMBED | Purpose.EMBED_ANYHOW:
            return ["embedding"]
        case Purpose.RERANK:
            return []
    metadata: Mapping[str, Value] = model.header.metadata if model.header else {}
    projector = model.projector.metadata if model.projector else {}
    can = {
        "completion": True,
        "tools": _TOOLS.search(model.template) is not None,
        "insert": any(key in metadata for key in _FILL_IN),
        "vision": model.projector is not None
        and projector.get("clip.has_vision_encoder") is not False,
        "audio": projector.get("clip.has_audio_encoder") is True,
        "thinking": _THINKING.search(model.template) is not None,
    }
    return [name for name, true in can.items() if true]


def refusal(path: str, model: str) -> str:
    """What to do here instead of what this path does in Ollama."""
    return _INSTEAD[path].replace("MODEL", model or "the model")


_INSTEAD: Final[Mapping[str, str]] = {
    "/api/pull": (
        'llamasup pulls no models, and has no "MODEL": put a GGUF file into one of the folders in'
        " discover.folders, and it is listed at once"
    ),
    "/api/push": "llamasup publishes no models",
    "/api/create": (
        "llamasup makes no models: write [models.NAME] with a path into llamasup.toml, and what"
        " a Modelfile would set into its variants or params"
    ),
    "/api/copy": (
        "llamasup copies no models: to give one another name, write it into the model's `aliases`"
    ),
    "/api/delete": "llamasup deletes no files: remove that of MODEL from its folder",
}
