"""A client asks, a real engine answers, and every byte is right."""

from __future__ import annotations

import pytest
import trio

from tests.harness import Llamasup, chat, counted, running


async def test_a_streamed_chat_arrives_token_by_token_and_whole(
    counting: dict[str, object],
) -> None:
    async with running(counting) as llamasup:
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(200))
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/event-stream"
        assert reply.text() == counted(200)
        assert reply.events()[-1] == "[DONE]"
        assert reply.complete


async def test_a_chat_in_one_piece_is_the_same(counting: dict[str, object]) -> None:
    async with running(counting) as llamasup:
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(50, stream=False))
        assert reply.json()["choices"][0]["message"]["content"] == counted(50)
