"""A model is only asked for what it can do, and the refusal says what to write where."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from llamasup.errors import ModelUnfit
from llamasup.front.purposes import compare, wanted_at
from llamasup.models.purpose import Purpose
from tests.harness import Journal, chat, running
from tests.models.shapes import bert

Faking = Callable[..., Mapping[str, object]]


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (b"/v1/chat/completions", Purpose.GENERATE),
        (b"/v1/messages?beta=true", Purpose.GENERATE),
        (b"/completion", Purpose.GENERATE),
        (b"/v1/embeddings", Purpose.EMBED),
        (b"/embedding", Purpose.EMBED),
        (b"/v1/reranking", Purpose.RERANK),
        (b"/v1/audio/transcriptions", None),
        (b"/tokenize", None),
        (b"/v1/messages/count_tokens", None),
        (b"/anything/else", None),
    ],
)
def test_a_path_says_what_a_model_must_be_for(target: bytes, wanted: Purpose | None) -> None:
    assert wanted_at(target) is wanted


@pytest.mark.parametrize("purpose", Purpose)
@pytest.mark.parametrize("wanted", [Purpose.GENERATE, Purpose.EMBED, Purpose.RERANK])
def test_only_what_a_model_is_for_may_be_asked(purpose: Purpose, wanted: Purpose) -> None:
    if purpose is wanted or (purpose is Purpose.EMBED_ANYHOW and wanted is Purpose.EMBED):
        compare("m", purpose, wanted)
    else:
        with pytest.raises(ModelUnfit, match=f'"m".* write purpose = "{wanted.value}"'):
            compare("m", purpose, wanted)


def test_what_only_an_engine_can_tell_is_left_to_it() -> None:
    compare("m", None, Purpose.RERANK)


async def test_a_refused_request_loads_nothing(
    faking: Faking, journal: Journal, tmp_path: Path
) -> None:
    model = str(bert().write(tmp_path))
    embedding = {**faking(), "models.fake.path": model}
    async with running(embedding) as llamasup:
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(1))
        assert (reply.status, reply.error["code"]) == (400, "model_unfit")
        assert not journal.entries("ready")
        assert (await llamasup.ask("POST", "/v1/embeddings", {"input": "a"})).status == 200
    for its_own in ({"models.fake.purpose": "generate"}, {"engine.args": ["--embeddings"]}):
        async with running({**embedding, **its_own}) as llamasup:
            assert (await llamasup.ask("POST", "/v1/chat/completions", chat(1))).status == 200
