"""A client asks, a real engine answers, and every byte is right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from llamasup.models.demo import reciting_model
from tests.harness import (
    Llamasup,
    Reply,
    chat,
    counted,
    counting_model,
    eventually,
    request,
    running,
)

CHAT = "/v1/chat/completions"


async def test_a_streamed_chat_arrives_token_by_token_and_whole(
    counting: dict[str, object],
) -> None:
    async with running(counting) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(200))
        assert reply.status == 200
        assert reply.headers["content-type"] == "text/event-stream"
        assert reply.text() == counted(200)
        assert reply.events()[-1] == "[DONE]"
        assert reply.complete


async def test_a_chat_in_one_piece_is_the_same(counting: dict[str, object]) -> None:
    async with running(counting) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(50, stream=False))
        assert reply.json()["choices"][0]["message"]["content"] == counted(50)


async def test_an_answer_goes_on_from_an_assistants_message(counting: dict[str, object]) -> None:
    conversation = [
        {"role": "user", "content": "count"},
        {"role": "assistant", "content": counted(3)},
    ]
    async with running(counting) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(4, messages=conversation))
        assert reply.text().removeprefix(counted(3)) == " 3 4 5 6"


# --- embeddings and rankings of a model that writes; all routes: tests/conformance ---

EMBEDDING: dict[str, object] = {
    "/embedding": {"content": "count"},
    "/embeddings": {"input": "count"},
    "/v1/embeddings": {"input": ["count", "on"]},
}
QUESTION: dict[str, object] = {"query": "count", "documents": ["one", "two", "three"]}
RERANKING: dict[str, object] = dict.fromkeys(
    ["/rerank", "/v1/rerank", "/reranking", "/v1/reranking"], QUESTION
)


@pytest.mark.parametrize(
    ("arguments", "routes"),
    [
        pytest.param(["--embeddings", "--pooling", "last"], EMBEDDING, id="embeddings"),
        pytest.param(["--rerank"], RERANKING, id="reranking"),
    ],
)
async def test_embeddings_and_rankings_are_the_engines_own(
    counting: dict[str, object], arguments: list[str], routes: dict[str, object]
) -> None:
    async with running(counting | {"models.count.extra_args": arguments}) as llamasup:
        for path, body in routes.items():
            reply = await the_engines_own(llamasup, "POST", path, body)
            assert reply.status == 200, reply.body


async def the_engines_own(llamasup: Llamasup, method: str, path: str, body: object) -> Reply:
    """llamasup's reply, which must be the one that its engine gives who asks it directly."""
    await llamasup.ask(method, path, body)  # the second time, the prompt is in the engine's cache
    relayed = await llamasup.ask(method, path, body)
    async with await llamasup.connect_to_engine("count") as engine:
        await engine.send(request(method, path, body, {"Connection": "close"}))
        direct = await engine.reply()
    assert relayed.complete
    assert relayed.status == direct.status, path
    assert relayed.headers["content-type"] == direct.headers["content-type"]
    assert comparable(relayed) == comparable(direct), path
    return relayed


def comparable(reply: Reply) -> object:
    """What an engine says each time that it is asked the same."""
    if reply.headers["content-type"].startswith("text/plain"):
        return [line for line in reply.body.decode().splitlines() if line.startswith("#")]
    return [without_what_differs(value) for value in values(reply)]


def values(reply: Reply) -> list[Any]:
    """The JSON of each event, or of the body."""
    if reply.headers["content-type"] != "text/event-stream":
        return [reply.json()]
    lines = [line for line in reply.body.decode().splitlines() if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def without_what_differs(value: Any) -> Any:
    if isinstance(value, list):
        return [without_what_differs(item) for item in value]
    if isinstance(value, dict):
        return {k: without_what_differs(v) for k, v in value.items() if k not in IDS_AND_TIMES}
    return value


IDS_AND_TIMES = {"id", "item_id", "created", "created_at", "completed_at", "timings", "id_task"}


# --- several models, several clients ---


async def test_each_of_several_models_loads_at_its_first_request(
    engine: str, tmp_path: Path
) -> None:
    counting_model(tmp_path / "numbers.gguf")
    (tmp_path / "letters.gguf").write_bytes(
        reciting_model([f" {letter}" for letter in "abcdef"], context=1024, name="letters")
    )
    config = {"engine.command": engine} | {
        f"models.{name}.path": str(tmp_path / f"{name}.gguf") for name in ("numbers", "letters")
    }
    async with running(config) as llamasup:
        assert await loads(llamasup) == {"numbers": 0, "letters": 0}
        reply = await llamasup.ask("POST", CHAT, chat(3, model="letters"))
        assert reply.text() == " a b c"
        assert await loads(llamasup) == {"numbers": 0, "letters": 1}
        for _ in range(2):
            reply = await llamasup.ask("POST", CHAT, chat(3, model="numbers"))
            assert reply.text() == counted(3)
        assert await loads(llamasup) == {"numbers": 1, "letters": 1}


async def loads(llamasup: Llamasup) -> dict[str, int]:
    return {model["name"]: model["loads"] for model in (await llamasup.status())["models"]}


ENDLESS = chat(30_000, ignore_eos=True)
"""Some ten seconds of tokens: it holds a slot until its client leaves."""


async def test_two_clients_are_answered_at_once_in_two_slots(counting: dict[str, object]) -> None:
    async with running(counting) as llamasup, llamasup.connect() as endless:
        await endless.send(request("POST", CHAT, ENDLESS))
        await endless.read_until(b" 5")
        reply = await llamasup.ask("POST", CHAT, chat(50))
        assert reply.text() == counted(50)
        child = (await llamasup.model_status("count"))["child"]
        assert child["slots_taken"] == 1


async def test_requests_that_wait_for_the_only_slot_are_answered_in_order(
    counting: dict[str, object],
) -> None:
    answered: list[int] = []

    async def ask(number: int) -> None:
        reply = await llamasup.ask("POST", CHAT, chat(20 + number))
        assert reply.text() == counted(20 + number)
        answered.append(number)

    async def waiting(count: int) -> bool:
        return bool((await llamasup.model_status("count"))["waiting"] == count)

    async with running(counting | {"models.count.parallel": 1}) as llamasup:
        async with trio.open_nursery() as nursery, llamasup.connect() as endless:
            await endless.send(request("POST", CHAT, ENDLESS))
            await endless.read_until(b" 5")
            for number in range(8):
                nursery.start_soon(ask, number)
                await eventually(lambda there=number + 1: waiting(there))
            endless.leave_by_fin()
        assert answered == list(range(8))


async def test_fifty_streams_at_once_through_two_slots_lose_no_token(
    counting: dict[str, object],
) -> None:
    async def ask(tokens: int) -> None:
        reply = await llamasup.ask("POST", CHAT, chat(tokens))
        assert reply.text() == counted(tokens)
        assert reply.events()[-1] == "[DONE]"
        assert reply.complete

    async with running(counting) as llamasup, trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(ask, 50 + number)


# --- much at once ---

LONG_WORDS = [f" word-{number:02}-{'x' * 42}" for number in range(8)]
"""Each one token, and fifty bytes: a megabyte is a prompt of moderate length for the engine."""


@pytest.fixture(scope="module")
def wordy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "wordy.gguf"
    path.write_bytes(reciting_model(LONG_WORDS, context=32768, name="wordy"))
    return path


@pytest.fixture
def wordy(engine: str, wordy_model: Path) -> dict[str, object]:
    """The configuration of a real engine whose tokens are long."""
    return {
        "engine.command": engine,
        "models.wordy.path": str(wordy_model),
        "models.wordy.threads": 1,
    }


async def test_a_prompt_of_a_megabyte_arrives_whole(wordy: dict[str, object]) -> None:
    words = 1_000_000 // len(LONG_WORDS[0])
    conversation = [
        {"role": "user", "content": LONG_WORDS[0] * (words - 1)},
        {"role": "assistant", "content": LONG_WORDS[2]},
    ]
    async with running(wordy) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(3, stream=False, messages=conversation))
        assert reply.json()["usage"]["prompt_tokens"] >= words
        answer = reply.json()["choices"][0]["message"]["content"]
        assert answer.removeprefix(LONG_WORDS[2]) == "".join(LONG_WORDS[3:6])


async def test_an_answer_of_megabytes_is_right_byte_for_byte(wordy: dict[str, object]) -> None:
    text = "".join(LONG_WORDS[number % 7] for number in range(20_000))
    async with running(wordy) as llamasup:
        tokens = (await llamasup.ask("POST", "/tokenize", {"content": text})).json()["tokens"]
        reply = await llamasup.ask("POST", "/detokenize", {"tokens": tokens * 8})
        assert len(reply.body) > 8_000_000
        assert reply.complete
        assert reply.json()["content"] == text * 8


# --- as client libraries do it ---


async def test_an_openai_client_lists_asks_and_streams(counting: dict[str, object]) -> None:
    """What the official client sends, by the HTTP library that it is built on."""
    async with (
        running(counting) as llamasup,
        httpx.AsyncClient(
            base_url=f"{llamasup.url}/v1/",
            headers={"Authorization": "Bearer none", "Accept-Encoding": "gzip, deflate, br"},
            trust_env=False,  # no proxy is to stand in between
        ) as client,
    ):
        models = (await client.get("models")).raise_for_status().json()
        assert [model["id"] for model in models["data"]] == ["count"]

        whole = await client.post("chat/completions", json=chat(20, stream=False, model="count"))
        assert whole.json()["choices"][0]["message"]["content"] == counted(20)

        body = chat(100, model="count", stream_options={"include_usage": True})
        async with client.stream("POST", "chat/completions", json=body) as streamed:
            events = [line async for line in streamed.aiter_lines() if line]
        assert events.pop() == "data: [DONE]"
        deltas = [json.loads(event.removeprefix("data: ")) for event in events]
        assert deltas[-1]["usage"]["completion_tokens"] == 100
        choices = [choice for delta in deltas for choice in delta["choices"]]
        assert "".join(choice["delta"].get("content") or "" for choice in choices) == counted(100)
