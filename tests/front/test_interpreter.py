"""A request is put into an engine's words, wherever its body lies, and its words have bounds."""

from __future__ import annotations

import json
import re

import pytest
import trio
from trio.testing import MockClock

from llamasup.apis.ollama_chat import OllamaChat
from llamasup.apis.ollama_generate import OllamaGenerate
from llamasup.apis.translation import Residence, Translation
from llamasup.errors import ClientError, Shortage
from llamasup.front.interpreter import FEW_PARTS, MOST_PARTS, SMALL, interpreted
from llamasup.front.rooms import Room
from llamasup.http.requests import Request, Stored
from tests.harness import no_threads

PATH = b"/api/generate"


class InPieces:
    """A body that lies elsewhere."""

    def __init__(self, content: bytes, piece: int = 1000) -> None:
        self._content = content
        self._piece = piece

    def __len__(self) -> int:
        return len(self._content)

    async def read(self, at: int) -> bytes:
        return self._content[at : at + self._piece]


def asked(body: bytes | Stored) -> Request:
    return Request(b"POST", PATH, [], True, False, b"the-id", body)


def generate(size: int) -> bytes:
    return json.dumps({"model": "m", "prompt": "x" * size}).encode()


@pytest.mark.parametrize("size", [10, 2 * SMALL])
@pytest.mark.parametrize("is_stored", [False, True])
async def test_a_body_is_translated_and_counts_as_long_as_it_is_used(
    size: int, is_stored: bool
) -> None:
    memory, body = Room(1 << 30, "no room"), generate(size)
    request = asked(InPieces(body) if is_stored else body)
    async with interpreted(request, OllamaGenerate(), PATH, memory, "me") as interpreter:
        assert isinstance(interpreter.meant, Translation)
        assert memory.taken >= len(body)
        put = interpreter.asked(interpreter.meant)
        assert json.loads(bytes(put.body))["messages"][0]["content"] == "x" * size  # type: ignore[arg-type]
        assert (put.target, put.id) == (PATH, b"the-id")
        assert interpreter.meant.target == b"/v1/chat/completions"
        assert interpreter.reply("m")
    assert memory.taken == 0


async def test_a_body_that_is_not_understood_leaves_nothing() -> None:
    memory = Room(1 << 30, "no room")
    with pytest.raises(ClientError):
        async with interpreted(asked(b"{"), OllamaChat(), PATH, memory, "me"):
            pytest.fail("it cannot be understood")
    assert memory.taken == 0


async def test_a_model_that_is_only_to_be_loaded_has_no_reply() -> None:
    memory = Room(1 << 30, "no room")
    async with interpreted(asked(b"{}"), OllamaChat(), PATH, memory, "me") as interpreter:
        assert isinstance(interpreter.meant, Residence)
        assert interpreter.reply("m") is None


async def test_an_answer_says_when_it_began_and_how_long_that_took(
    autojump_clock: MockClock,
) -> None:
    memory = Room(1 << 30, "no room")
    async with interpreted(asked(b"{}"), OllamaChat(), PATH, memory, "me") as interpreter:
        await trio.sleep(2.5)
        moment = interpreter.moment("m")
    assert (moment.model, moment.waited) == ("m", 2.5)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", moment.created_at)


async def test_without_a_thread_a_large_body_is_refused_for_now() -> None:
    memory = Room(1 << 30, "no room")
    with no_threads(), pytest.raises(Shortage):
        async with interpreted(asked(generate(2 * SMALL)), OllamaGenerate(), PATH, memory, "me"):
            pytest.fail("there is no thread to translate it")
    assert memory.taken == 0


@pytest.mark.parametrize("is_stored", [False, True])
async def test_what_has_too_many_parts_is_refused_before_any_of_them_is_made(
    is_stored: bool,
) -> None:
    """8 MB of them took 2 GB of memory, and half a minute."""
    memory, parts = Room(1 << 30, "no room"), b",".join([b"{}"] * (MOST_PARTS + 1))
    body = b'{"messages":[{"role":"assistant","tool_calls":[%b]}]}' % parts
    with pytest.raises(ClientError, match="more than 262144 parts"):
        async with interpreted(
            asked(InPieces(body) if is_stored else body), OllamaChat(), PATH, memory, "me"
        ):
            pytest.fail("it has too many parts")
    assert memory.taken == 0


async def test_what_is_small_but_has_many_parts_is_translated_in_a_thread() -> None:
    memory = Room(1 << 30, "no room")
    body = b'{"prompt":"x","images":[%b]}' % b",".join([b'""'] * FEW_PARTS)
    assert len(body) < SMALL
    with pytest.raises(Shortage), no_threads():
        async with interpreted(asked(body), OllamaGenerate(), PATH, memory, "me"):
            pytest.fail("it takes too long for the loop")
