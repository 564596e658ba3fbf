"""The journal is told how each request goes on, how it ends, and what its answer took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from llamasup import events
from tests.harness import chat, eventually, request, running

Faking = Callable[..., Mapping[str, object]]

CHAT = "/v1/chat/completions"


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[events.OfRequest]]:
    """Every event of a request, in order."""
    journal, heard = events.Journal(), list[events.OfRequest]()
    monkeypatch.setattr("llamasup.serve.Journal", lambda: journal)
    with journal.heard_by(heard.append, *events.OfRequest.__subclasses__()):
        yield heard


def kinds(told: list[events.OfRequest]) -> list[type]:
    return [type(event) for event in told]


async def test_the_course_of_a_request_is_told_with_its_id_and_its_model(
    faking: Faking, told: list[events.OfRequest]
) -> None:
    async with running(faking()) as llamasup:
        mine = {"X-Request-ID": "mine"}
        assert (await llamasup.ask("POST", CHAT, chat(3), mine)).status == 200
        await eventually(lambda: kinds(told)[-1] is events.RequestEnded)
    came, entered, first, ended = told
    assert came == events.RequestCame("mine", "127.0.0.1", "POST", CHAT)
    assert isinstance(entered, events.RequestEntered)
    assert isinstance(first, events.FirstByte)
    assert isinstance(ended, events.RequestEnded)
    assert {event.request for event in told} == {"mine"}
    assert {entered.model, first.model, ended.model} == {"fake"}
    assert 0 <= entered.seconds <= first.seconds <= ended.seconds


async def test_what_an_answer_took_is_told(
    counting: dict[str, object], told: list[events.OfRequest]
) -> None:
    async with running(counting) as llamasup:
        in_ollamas = {"messages": [{"role": "user", "content": "x"}], "options": {"num_predict": 5}}
        for path, asked in (
            (CHAT, chat(5, stream=False)),
            (CHAT, chat(5, stream=True, stream_options={"include_usage": True})),
            ("/api/chat", in_ollamas),
            ("/api/chat", {**in_ollamas, "stream": False}),
        ):
            assert (await llamasup.ask("POST", path, asked)).status == 200
        await eventually(lambda: kinds(told).count(events.RequestEnded) == 4)
    ended = [event.usage for event in told if isinstance(event, events.RequestEnded)]
    assert all(usage is not None and usage.answer_tokens == 5 for usage in ended), ended


async def test_what_is_refused_is_told_with_the_reason(
    faking: Faking, told: list[events.OfRequest]
) -> None:
    async with running(faking()) as llamasup:
        assert (await llamasup.ask("GET", "/nope?key=secret")).status == 404
        await eventually(lambda: kinds(told)[-1] is events.RequestEnded)
    (refused,) = (event for event in told if isinstance(event, events.RequestRefused))
    assert (refused.method, refused.path, refused.status) == ("GET", "/nope", 404)
    assert "secret" not in str(told)


@pytest.mark.parametrize(
    ("delays", "phase"),
    [
        (["--fake-first-byte-delay", "30"], events.Phase.WAITING),
        (["--fake-token-delay", "0.05"], events.Phase.ANSWERING),
    ],
)
async def test_a_client_that_leaves_is_told_of_with_the_phase(
    faking: Faking,
    told: list[events.OfRequest],
    delays: list[str],
    phase: events.Phase,
) -> None:
    async with running(faking(*delays)) as llamasup:
        async with llamasup.connect() as client:
            await client.send(request("POST", CHAT, chat(1000, stream=True)))
            await eventually(
                lambda: (
                    events.RequestEntered in kinds(told)
                    and (phase is events.Phase.WAITING or events.FirstByte in kinds(told))
                )
            )
            if phase is events.Phase.ANSWERING:
                await client.read_some()
        await eventually(lambda: kinds(told)[-1] is events.RequestCancelled)
    (left,) = (event for event in told if isinstance(event, events.RequestCancelled))
    assert (left.model, left.phase) == ("fake", phase)


async def test_a_request_whose_answer_is_cut_is_told_to_be_over(
    faking: Faking, told: list[events.OfRequest]
) -> None:
    async with running(faking("--fake-die-at-byte", "20", "--fake-death", "reset")) as llamasup:
        assert not (await llamasup.ask("POST", CHAT, chat(3, stream=False))).complete
        await eventually(lambda: kinds(told)[-1] is events.RequestCancelled)
    assert kinds(told)[-2:] == [events.AnswerCut, events.RequestCancelled]


async def test_a_request_that_is_sent_again_is_told_of(
    faking: Faking, told: list[events.OfRequest]
) -> None:
    async with running(
        faking("--fake-die-at-byte", "-1", "--fake-scripted-lives", "1")
    ) as llamasup:
        await llamasup.ask("POST", CHAT, chat(3))
    assert events.RequestReplayed in kinds(told)
