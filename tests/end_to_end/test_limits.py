"""What real engines answer is what keys are charged, and what decides who goes first."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio

from tests.harness import Llamasup, chat, eventually, request, running

ALICE, BOB, CAROL = (f"sk-the-key-of-{name}" for name in ("alice", "bob", "carol"))
CHAT = "/v1/chat/completions"


def key(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def limited(counting: Mapping[str, object]) -> dict[str, object]:
    return {
        **counting,
        "models.count.parallel": 1,
        "keys.alice.key": ALICE,
        "keys.alice.tokens_per_minute": 600,  # ten flow back in a second
        "keys.bob.key": BOB,
        "keys.bob.tokens_per_minute": 600,
    }


async def left(llamasup: Llamasup, secret: str) -> int:
    """How many tokens a key has left. The question itself takes none."""
    reply = await llamasup.ask("POST", "/tokenize", {"content": "x"}, key(secret))
    return int(reply.headers["x-ratelimit-remaining-tokens"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat(200)),
        (CHAT, chat(200, stream=False)),
        (CHAT, {**chat(200), "stream_options": {"include_usage": True}}),
        ("/v1/messages", chat(200)),
        ("/completion", {"prompt": "x", "n_predict": 200, "stream": True}),
        ("/completion", {"prompt": "x", "n_predict": 200, "response_fields": ["content"]}),
    ],
)
async def test_every_answer_is_charged_though_its_client_asks_for_no_usage(
    limited: dict[str, object], path: str, body: dict[str, object]
) -> None:
    async with running(limited) as llamasup:
        assert (await llamasup.ask("POST", path, body, key(ALICE))).status == 200
        # A prompt has some tokens, and some flow back while the question is asked.
        assert 370 <= await left(llamasup, ALICE) < 570
        assert await left(llamasup, BOB) == 600


async def test_who_leaves_pays_for_what_it_saw(limited: dict[str, object]) -> None:
    async with running(limited) as llamasup:
        async with llamasup.connect() as client:
            await client.send(request("POST", CHAT, chat(3000), key(ALICE)))
            await client.read_until(b'" 300"')
        with trio.fail_after(10):
            while await left(llamasup, ALICE) > 400:
                await trio.sleep(0.05)


async def test_who_used_least_goes_first_where_tokens_decide(
    limited: dict[str, object],
) -> None:
    limited |= {"pool.fair": "tokens", "keys.carol.key": CAROL, "keys.carol.operator": True}
    order: list[str] = []
    async with running(limited) as llamasup, llamasup.connect() as busy:
        await llamasup.ask("POST", CHAT, chat(300), key(ALICE))

        async def ask(name: str, secret: str) -> None:
            assert (await llamasup.ask("POST", CHAT, chat(3), key(secret))).status == 200
            order.append(name)

        async def all_wait() -> bool:
            status = await llamasup.ask("GET", "/api/status", headers=key(CAROL))
            return bool(status.json()["models"][0]["waiting"] == len(names))

        await busy.send(request("POST", CHAT, chat(3000), key(CAROL)))
        await busy.read_until(b'" 1"')
        names = list[str]()
        async with trio.open_nursery() as nursery:
            for name, secret in (("alice", ALICE), ("alice", ALICE), ("bob", BOB)):
                names.append(name)
                nursery.start_soon(ask, name, secret)
                await eventually(all_wait)
            busy.leave_by_reset()
    assert order == ["bob", "alice", "alice"]
