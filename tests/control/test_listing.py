"""A model is listed in the form that the client reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from llamasup.config.schema import ModelSettings
from llamasup.control.listing import (
    Listed,
    Standing,
    anthropic_entry,
    anthropic_list,
    entry,
    in_a_word,
    is_for_anthropic,
    status,
)
from llamasup.models.facts import Facts
from llamasup.models.profile import Profile
from llamasup.models.purpose import Purpose
from llamasup.states import KeeperState

REST = Standing(KeeperState.UNLOADED)
FACTS = Facts("x", 99, "F16", 4096, 700, 0.0)
PROFILE = Profile(
    size=700,
    facts=FACTS,
    width=64,
    vocabulary=300,
    vocabulary_type=2,
)
SETTINGS = ModelSettings(path=Path("m.gguf"))
LISTED = Listed("m", (), SETTINGS, REST, PROFILE, None, None, 32768, slots=1, configured=True)


def entry_of(listed: Listed) -> Any:
    document = entry(listed, 7)
    assert json.loads(json.dumps(document)) == document
    return document


@pytest.mark.parametrize(
    ("standing", "document"),
    [
        (REST, {"value": "unloaded"}),
        (Standing(KeeperState.READY, progress=0.5, failure="old"), {"value": "loaded"}),
        (Standing(KeeperState.LEAVING), {"value": "loaded"}),
        (Standing(KeeperState.READY, asleep=True), {"value": "sleeping"}),
        (Standing(KeeperState.LOADING), {"value": "loading"}),
        (Standing(KeeperState.WAITING), {"value": "loading", "waits_for": "room"}),
        (
            Standing(KeeperState.OVERTAKEN, progress=0.12345),
            {
                "value": "loading",
                "progress": {"stages": ["text_model"], "current": "text_model", "value": 0.123},
            },
        ),
        (
            Standing(KeeperState.FAILED, failure="it is broken"),
            {"value": "failed", "failed": True, "why": "it is broken"},
        ),
    ],
)
def test_a_status_says_what_there_is_to_say(standing: Standing, document: object) -> None:
    assert status(standing) == document


def test_every_state_has_a_word() -> None:
    words = {in_a_word(state) for state in KeeperState}
    assert words == {"unloaded", "loading", "loaded", "failed"}


def test_what_the_header_says_is_in_the_meta_data() -> None:
    assert entry_of(LISTED)["meta"] == {
        "vocab_type": 2,
        "n_vocab": 300,
        "n_ctx_train": 4096,
        "n_embd": 64,
        "n_params": 99,
        "size": 700,
    }
    for unknown in (None, Profile()):
        assert entry_of(evolve(LISTED, profile=unknown))["meta"] is None


@pytest.mark.parametrize(
    ("loaded", "best", "trained", "parallel", "length"),
    [
        (None, 32768, 4096, 1, 4096),
        (None, 32768, 131072, 1, 32768),
        (None, 32768, None, 4, 8192),
        (None, None, 4096, 1, 4096),
        (None, None, None, 1, None),
        (8192, 32768, 131072, 1, 8192),
        (8192, 32768, 131072, 2, 4096),
    ],
)
def test_the_length_of_the_context_is_what_one_request_can_have(
    loaded: int | None, best: int | None, trained: int | None, parallel: int, length: int | None
) -> None:
    profile = evolve(PROFILE, facts=evolve(FACTS, trained_context=trained))
    document = entry_of(
        evolve(LISTED, slots=parallel, profile=profile, context=loaded, best_context=best)
    )
    assert (document["context"], document["context_length"]) == (loaded, length)
    assert document["meta"].get("n_ctx") == (loaded and loaded // parallel)


@pytest.mark.parametrize(
    ("projector", "inputs"),
    [
        (None, ["text"]),
        (Profile(), ["text"]),
        (Profile(sees=True), ["text", "image"]),
        (Profile(hears=True), ["text", "audio"]),
        (Profile(sees=True, hears=True), ["text", "image", "audio"]),
    ],
)
def test_the_projector_decides_what_a_model_takes_in(
    projector: Profile | None, inputs: list[str]
) -> None:
    architecture = entry_of(evolve(LISTED, projector=projector))["architecture"]
    assert architecture == {"input_modalities": inputs, "output_modalities": ["text"]}


@pytest.mark.parametrize(
    ("purpose", "output"),
    [(Purpose.GENERATE, "text"), (Purpose.EMBED, "embeddings"), (Purpose.RERANK, "rerank")],
)
def test_its_purpose_decides_what_comes_out(purpose: Purpose, output: str) -> None:
    listed = evolve(LISTED, profile=evolve(PROFILE, purpose=purpose))
    assert entry_of(listed)["architecture"]["output_modalities"] == [output]


def test_a_defect_is_a_failure_but_not_of_a_model_that_is_loaded() -> None:
    broken = evolve(LISTED, profile=Profile(defect="cut off"))
    document = entry_of(broken)
    assert document["status"] == {"value": "failed", "failed": True, "why": "cut off"}
    assert document["defect"] == "cut off"
    loaded = entry_of(evolve(broken, standing=Standing(KeeperState.READY)))
    assert loaded["status"] == {"value": "loaded"}


def test_anthropics_form_has_no_more_than_anthropic_says() -> None:
    one = anthropic_entry(LISTED, "2026-01-01T00:00:00Z")
    assert one == {
        "type": "model",
        "id": "m",
        "display_name": "m",
        "created_at": "2026-01-01T00:00:00Z",
    }
    assert anthropic_list([one], ["m"]) == {
        "data": [one],
        "has_more": False,
        "first_id": "m",
        "last_id": "m",
    }
    assert anthropic_list([], [])["first_id"] is None


def test_anthropics_clients_are_known_by_their_header() -> None:
    assert is_for_anthropic([(b"host", b"x"), (b"anthropic-version", b"2023-06-01")])
    assert not is_for_anthropic([(b"host", b"anthropic-version")])
