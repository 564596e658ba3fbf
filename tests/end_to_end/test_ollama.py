"""Ollama's clients find here what they know from Ollama, from every real engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import ollama
import pytest
import trio

from tests.harness import Journal, Llamasup, Reply, counted, eventually, request, running

Fake = Callable[..., Mapping[str, object]]
Result = TypeVar("Result")

CHAT, GENERATE = "/api/chat", "/api/generate"
COUNT = [{"role": "user", "content": "count"}]
PICTURE = "iVBORw0KGgo="


def chat(tokens: int = 5, **more: object) -> dict[str, object]:
    """A chat of so many tokens, in Ollama's API."""
    return {"messages": COUNT, "options": {"num_predict": tokens}, **more}


def lines(reply: Reply) -> list[Any]:
    """The lines of a stream that came whole."""
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert reply.complete
    return [json.loads(line) for line in reply.body.splitlines()]


def said(told: list[Any]) -> str:
    return "".join(line["message"]["content"] for line in told)


async def with_client(llamasup: Llamasup, use: Callable[[ollama.Client], Result]) -> Result:
    """What `use` returns of Ollama's own client, in a thread."""
    with trio.fail_after(60), ollama.Client(host=llamasup.url) as client:
        return await trio.to_thread.run_sync(use, client)


# --- Ollama's own client ---


async def test_its_client_chats(counting: Mapping[str, object]) -> None:
    def use(client: ollama.Client) -> None:
        whole = client.chat("count", COUNT, options={"num_predict": 5})
        assert whole.message.content == counted(5)
        assert (whole.done, whole.done_reason, whole.eval_count) == (True, "length", 5)
        assert whole.eval_duration
        assert whole.prompt_eval_count
        assert whole.total_duration
        stream = list(client.chat("count", COUNT, stream=True, options={"num_predict": 5}))
        assert "".join(part.message.content or "" for part in stream) == counted(5)
        assert [part.done for part in stream] == [False] * (len(stream) - 1) + [True]

    async with running(counting) as llamasup:
        await with_client(llamasup, use)


async def test_its_client_prompts(counting: Mapping[str, object]) -> None:
    def use(client: ollama.Client) -> None:
        for raw in (False, True):
            options = {"num_predict": 4, "temperature": 0, "stop": ["9"], "num_ctx": 64}
            whole = client.generate("count:latest", "count<|go|>", raw=raw, options=options)
            assert whole.response == counted(4)
            stream = list(
                client.generate("count", "count<|go|>", raw=raw, options=options, stream=True)
            )
            assert "".join(part.response or "" for part in stream) == counted(4)
            assert stream[-1].eval_count == 4

    async with running(counting) as llamasup:
        await with_client(llamasup, use)


async def test_its_client_learns_how_probable_words_were(counting: Mapping[str, object]) -> None:
    def use(client: ollama.Client) -> None:
        asked = {"options": {"num_predict": 3}, "logprobs": True}
        chat = client.chat("count", COUNT, **asked)
        stream = client.chat("count", COUNT, stream=True, top_logprobs=2, **asked)
        raw = client.generate("count", "count<|go|>", raw=True, **asked)
        streamed = [told for part in stream for told in part.logprobs or []]
        assert [len(told.top_logprobs or []) for told in streamed] == [2, 2, 2]
        for logprobs in (chat.logprobs, raw.logprobs, streamed):
            assert "".join(told.token for told in logprobs or []) == counted(3)

    async with running(counting) as llamasup:
        await with_client(llamasup, use)


async def test_its_client_gets_answers_in_a_form(counting: Mapping[str, object]) -> None:
    # The model counts if it may; this makes it say what it never would.
    form = {"type": "string", "enum": ["no"]}
    options = {"num_predict": 40, "temperature": 0}

    def use(client: ollama.Client) -> None:
        chat = client.chat("count", COUNT, format=form, options=options)
        assert '"no"' in (chat.message.content or "")
        prompted = client.generate("count", "count", format=form, options=options)
        assert '"no"' in prompted.response

    async with running(counting) as llamasup:
        await with_client(llamasup, use)


async def test_its_client_embeds(counting: Mapping[str, object]) -> None:
    config = {**counting, "models.count.purpose": "embed"}

    def use(client: ollama.Client) -> None:
        one = client.embed("count", "hello")
        two = client.embed("count", ["hello", "count"], dimensions=8)
        old = client.embeddings("count", "hello")
        assert one.prompt_eval_count
        assert [len(vector) for vector in two.embeddings] == [8, 8]
        assert sum(x * x for x in one.embeddings[0]) == pytest.approx(1, rel=1e-3)
        assert sum(x * x for x in two.embeddings[1]) == pytest.approx(1, rel=1e-3)
        assert len(old.embedding) == len(one.embeddings[0])
        assert sum(x * x for x in old.embedding) != pytest.approx(1, rel=1e-3)

    async with running(config) as llamasup:
        await with_client(llamasup, use)


async def test_its_client_gets_errors_with_their_status(counting: Mapping[str, object]) -> None:
    def failure(use: Callable[[], object]) -> ollama.ResponseError:
        with pytest.raises(ollama.ResponseError) as caught:
            use()
        return caught.value

    def use(client: ollama.Client) -> None:
        unknown = failure(lambda: client.chat("nope", COUNT))
        assert (unknown.status_code, 'no model "nope"' in unknown.error) == (404, True)
        seen = [{"role": "user", "content": "what?", "images": [PICTURE]}]
        blind = failure(lambda: client.chat("count", seen))
        assert (blind.status_code, "image input is not supported" in blind.error) == (500, True)
        in_stream = failure(lambda: list(client.chat("count", seen, stream=True)))
        assert (in_stream.status_code, in_stream.error) == (500, blind.error)
        template = failure(lambda: client.generate("count", "x", template="{{ .Prompt }}"))
        assert (template.status_code, "template" in template.error) == (400, True)
        form = failure(lambda: client.chat("count", COUNT, format={"type": "nothing"}))
        assert form.status_code == 400

    async with running(counting) as llamasup:
        await with_client(llamasup, use)


async def test_its_client_loads_and_unloads(counting: Mapping[str, object]) -> None:
    async def state() -> str:
        status: str = (await llamasup.model_status("count"))["state"]
        return status

    async def is_unloaded() -> bool:
        return await state() == "unloaded"

    async with running(counting) as llamasup:
        loaded = await with_client(llamasup, lambda client: client.generate("count"))
        assert (loaded.done_reason, await state()) == ("load", "ready")
        await with_client(llamasup, lambda client: client.chat("count", COUNT, keep_alive=0))
        await eventually(is_unloaded)
        again = await with_client(llamasup, lambda client: client.chat("count"))
        assert (again.done_reason, await state()) == ("load", "ready")
        gone = await with_client(llamasup, lambda client: client.generate("count", keep_alive=0))
        assert gone.done_reason == "unload"
        await eventually(is_unloaded)
        await with_client(llamasup, lambda client: client.generate("count", keep_alive=0))
        assert await state() == "unloaded"


async def test_its_client_calls_tools(faking: Fake, journal: Journal) -> None:
    parts = [
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "add", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
    ]
    data = [*(json.dumps({"choices": [{"delta": part}]}) for part in parts), "[DONE]"]
    head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    stream = head + "".join(f"data: {event}\n\n" for event in data)
    # The fake engine answers with what the body has in `raw`: the model's params put it there.
    config = faking("--fake-raw", set_params={"raw": stream})

    def add(x: int) -> int:
        """Add one."""
        return x + 1

    def use(client: ollama.Client) -> None:
        asking, end = client.chat("fake", COUNT, tools=[add], stream=True)
        assert end.done
        [call] = asking.message.tool_calls or []
        assert (call.function.name, call.function.arguments) == ("add", {"x": 1})
        answered = [*COUNT, asking.message, {"role": "tool", "tool_name": "add", "content": "2"}]
        list(client.chat("fake", answered, tools=[add], stream=True))

    async with running(config) as llamasup:
        await with_client(llamasup, use)
    bodies = [entry["body"] for entry in journal.entries("request")]
    first, second = (json.loads(body) for body in bodies if body)
    assert first["tools"][0]["function"]["name"] == "add"
    _, called, told = second["messages"]
    assert called["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"x":1}'}
    assert told["tool_call_id"] == called["tool_calls"][0]["id"]


# --- what happens to its streams ---


async def test_a_line_comes_as_soon_as_its_word_is_said(faking: Fake) -> None:
    async with running(faking("--fake-token-delay", "0.3")) as llamasup, llamasup.connect() as raw:
        await raw.send(request("POST", CHAT, chat(50)))
        with trio.fail_after(10):
            await raw.read_until(b'" 1"')


@pytest.mark.parametrize("stream", [True, False])
async def test_a_request_whose_child_died_before_the_first_word_is_answered_by_the_next(
    faking: Fake, journal: Journal, stream: bool
) -> None:
    config = faking("--fake-die-at-byte", "-1", "--fake-scripted-lives", "1")
    async with running(config) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(stream=stream))
        told = lines(reply) if stream else [reply.json()]
        assert said(told) == counted(5)
    assert len(journal.entries("died")) == 1


@pytest.mark.parametrize("death", ["kill", "close"])
async def test_a_stream_that_is_cut_ends_with_an_error_and_properly(
    faking: Fake, death: str
) -> None:
    async with running(faking("--fake-die-at-byte", "900", "--fake-death", death)) as llamasup:
        *words, last = lines(await llamasup.ask("POST", CHAT, chat(90)))
        assert said(words).startswith(counted(2))
        assert last.keys() == {"error"}
        assert not any(line["done"] for line in words)


async def test_a_whole_answer_that_is_cut_is_made_again_by_the_next_child(
    faking: Fake, journal: Journal
) -> None:
    config = faking("--fake-die-at-byte", "40", "--fake-scripted-lives", "1")
    async with running(config) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(9, stream=False))
        assert (reply.status, said([reply.json()])) == (200, counted(9))
    assert len(journal.entries("died")) == 1


@pytest.mark.parametrize("options", [["--fake-error-in-stream"], []])
async def test_memory_that_runs_out_before_the_first_word_is_found_on_the_next_rung(
    faking: Fake, journal: Journal, options: list[str]
) -> None:
    error = "500 CUDA error: out of memory"
    config = faking("--fake-error", error, *options, "--fake-scripted-lives", "1")
    async with running({**config, "ladder.contexts": [16384, 8192]}) as llamasup:
        assert said(lines(await llamasup.ask("POST", CHAT, chat()))) == counted(5)
    assert len(journal.entries("started")) == 2


async def test_an_error_after_a_ping_is_the_only_line(faking: Fake) -> None:
    config = faking("--fake-error", "500 something broke", "--fake-error-in-stream")
    async with running(config) as llamasup:
        assert lines(await llamasup.ask("POST", CHAT, chat())) == [{"error": "something broke"}]


async def test_a_client_that_waits_is_sent_blanks_and_its_lines_can_be_read(faking: Fake) -> None:
    config = {**faking("--fake-load-seconds", "0.7"), "server.keepalive_after": "0.1s"}
    async with running(config) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat())
        assert reply.body.startswith(b"  ")
        assert said(lines(reply)) == counted(5)
    async with running(config) as llamasup:
        words = await with_client(
            llamasup, lambda client: list(client.chat("fake", COUNT, stream=True))
        )
        assert words[-1].done


async def test_an_error_after_blanks_is_a_line(faking: Fake) -> None:
    words = "0.00 E something broke"
    config = {
        **faking("--fake-load-seconds", "0.5", "--fake-fail-load", words),
        "server.keepalive_after": "0.1s",
        "recovery.patience": "0s",
    }
    async with running(config) as llamasup:
        [line] = lines(await llamasup.ask("POST", CHAT, chat()))
        assert "something broke" in line["error"]


async def test_a_client_that_leaves_is_told_to_the_engine(faking: Fake, journal: Journal) -> None:
    async with running(faking("--fake-token-delay", "0.05")) as llamasup:
        async with llamasup.connect() as client:
            await client.send(request("POST", CHAT, chat(500)))
            await client.read_until(b'" 1"')
        await journal.first("client closed")


# --- what happens to its requests ---


async def test_a_large_body_lies_on_the_disk_and_is_put_whole(
    faking: Fake, journal: Journal
) -> None:
    picture = "/9j/" + "A" * (3 << 20)
    messages = [{"role": "user", "content": "what?", "images": [picture]}]
    async with running(faking()) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(messages=messages, stream=False))
        assert reply.status == 200
    [entry] = journal.entries("request")[-1:]
    [message] = json.loads(entry["body"])["messages"]
    assert message["content"][1]["image_url"]["url"] == f"data:image/jpeg;base64,{picture}"


async def test_the_models_params_are_set_in_the_engines_words(
    faking: Fake, journal: Journal
) -> None:
    async with running(faking(set_params={"max_tokens": 2})) as llamasup:
        assert said(lines(await llamasup.ask("POST", CHAT, chat(90)))) == counted(2)


async def test_a_request_that_cannot_be_understood_loads_nothing(faking: Fake) -> None:
    async with running(faking()) as llamasup:
        reply = await llamasup.ask("POST", CHAT, {"messages": [{"role": 7}]})
        assert (reply.status, list(reply.json())) == (400, ["error"])
        assert (await llamasup.model_status("fake"))["loads"] == 0
