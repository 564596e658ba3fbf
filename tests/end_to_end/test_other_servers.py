"""Servers that are no llama-servers: started at a request, supervised, evicted and asked as models
are."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.harness import (
    PATIENCE,
    Journal,
    Llamasup,
    chat,
    eventually,
    is_alive,
    request,
    running,
    started,
)

Fake = Callable[..., Mapping[str, object]]

PROGRAM = [sys.executable, str(Path(__file__).parents[1] / "fakes" / "other_server.py")]
SPEECH = "/v1/audio/speech"
GIB = 1 << 30


@pytest.fixture
def serving(journal: Journal) -> Callable[..., dict[str, object]]:
    """The configuration of a server of ours, as `serving("--start", "1", slots=2)`."""

    def serving(*words: str, name: str = "voice", **settings: object) -> dict[str, object]:
        where = [] if "--socket" in words else ["--port", "${PORT}"]
        command = [*PROGRAM, *where, "--journal", str(journal.path), *words]
        return {
            f"models.{name}.command": command,
            f"models.{name}.health": "/health",
            **{f"models.{name}.{key}": value for key, value in settings.items()},
        }

    return serving


def speech(model: str = "voice", **more: object) -> dict[str, object]:
    return {"model": model, "input": "hello", **more}


async def speaks(llamasup: Llamasup, model: str = "voice") -> None:
    reply = await llamasup.ask("POST", SPEECH, speech(model))
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "audio/wav"
    assert reply.body.startswith(b"RIFF")


async def child_of(llamasup: Llamasup, model: str = "voice") -> Any:
    return (await llamasup.model_status(model))["child"]


async def test_a_server_is_started_at_its_first_request_and_no_engine_is_needed(
    serving: Callable[..., dict[str, object]], journal: Journal
) -> None:
    config = {**serving("--load", "0.3"), "engine.command": "/no/such/engine"}
    async with running(config) as llamasup:
        [listed] = (await llamasup.ask("GET", "/v1/models")).json()["data"]
        assert (listed["id"], listed["status"]["value"]) == ("voice", "unloaded")
        assert journal.entries() == []
        await speaks(llamasup)
        await speaks(llamasup)
        assert (await llamasup.model_status("voice"))["loads"] == 1
    assert not is_alive((await journal.first("started"))["pid"])
    assert [entry["name"] for entry in journal.entries("signal")] == ["SIGTERM"]


@pytest.mark.parametrize("health", ["/health", ""])
async def test_it_listens_on_a_unix_socket_or_on_a_port_of_its_own(
    serving: Callable[..., dict[str, object]], health: str
) -> None:
    config = {
        **serving(name="port", health=health),
        **serving("--socket", "${SOCKET}", name="socket", health=health),
    }
    async with running(config) as llamasup:
        await speaks(llamasup, "port")
        await speaks(llamasup, "socket")
        assert (await child_of(llamasup, "port"))["address"].startswith("127.0.0.1:")
        assert (await child_of(llamasup, "socket"))["address"].startswith("unix:")


async def test_it_inherits_no_keys_and_its_clients_secrets_are_left_out(
    serving: Callable[..., dict[str, object]], journal: Journal
) -> None:
    environ = {**os.environ, "OPENAI_API_KEY": "sk-1", "CUDA_VISIBLE_DEVICES": "0"}
    async with running(serving("--model", "${MODEL}"), environ) as llamasup:
        headers = {"Authorization": "Bearer sk-2", "X-Mine": "kept"}
        await llamasup.ask("POST", SPEECH, speech(), headers)
    begun, asked = await journal.first("started"), await journal.first("request")
    assert begun["environment"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert "OPENAI_API_KEY" not in begun["environment"]
    assert begun["argv"][begun["argv"].index("--model") + 1] == "voice"
    assert "authorization" not in {name.lower() for name in asked["headers"]}
    assert {k.lower(): v for k, v in asked["headers"].items()}["x-mine"] == "kept"


async def test_its_words_mean_nothing(
    serving: Callable[..., dict[str, object]],
) -> None:
    words = "initializing, n_slots = 7, n_ctx_slot = 1024, kv_unified = 'false'"
    async with running(serving("--say", words, slots=2)) as llamasup:
        await speaks(llamasup)
        assert (await child_of(llamasup))["slots"] == 2


async def test_one_that_dies_unanswered_is_replaced_and_the_request_is_sent_again(
    serving: Callable[..., dict[str, object]], journal: Journal
) -> None:
    async with running(serving("--die-at", SPEECH, "--lives", "1")) as llamasup:
        await speaks(llamasup)
    assert len(journal.entries("started")) == 2


async def test_a_request_that_kills_it_each_time_is_refused_and_others_are_answered(
    serving: Callable[..., dict[str, object]], journal: Journal
) -> None:
    async with running(serving("--die-at", "/v1/completions")) as llamasup:
        for _ in range(3):
            reply = await llamasup.ask("POST", "/v1/completions", speech())
        assert reply.status == 422, reply.body
        await speaks(llamasup)


async def test_an_answer_that_has_begun_is_cut_and_not_sent_again(
    serving: Callable[..., dict[str, object]], journal: Journal
) -> None:
    config = serving("--cut-at", SPEECH, "--lives", "1")
    async with running(config) as llamasup:
        reply = await llamasup.ask("POST", SPEECH, speech())
        assert (reply.status, reply.complete) == (200, False)
        await speaks(llamasup)
    assert len(journal.entries("request")) == 2


async def test_one_that_hangs_is_ended_and_the_request_sent_again(
    serving: Callable[..., dict[str, object]], journal: Journal
) -> None:
    config = serving("--hang-at", SPEECH, "--lives", "1")
    async with running(
        {**config, "recovery.stall_timeout": "1s", "recovery.health_interval": "1s"}
    ) as llamasup:
        await speaks(llamasup)
    assert len(journal.entries("started")) == 2


async def test_one_that_does_not_obey_term_is_killed(
    serving: Callable[..., dict[str, object]], journal: Journal
) -> None:
    async with running({**serving("--ignore-term"), "engine.stop_grace": "0.2s"}) as llamasup:
        await speaks(llamasup)
        pid = (await child_of(llamasup))["pid"]
    assert not is_alive(pid)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--fail", "no model whisper-9"], "exited with 3; its last words: no model whisper-9"),
        (["--frobnicate"], "exited with 2; its last words: other_server.py: error: unrecognized"),
    ],
)
async def test_why_it_cannot_be_started_is_told_in_its_own_words(
    serving: Callable[..., dict[str, object]], words: list[str], told: str
) -> None:
    async with running(serving(*words)) as llamasup:
        reply = await llamasup.ask("POST", SPEECH, speech())
        assert (reply.status, reply.error["code"]) == (503, "model_unavailable")
        assert told in reply.error["message"]


async def test_a_program_that_does_not_exist_is_told_by_name_and_tried_when_it_is_there(
    tmp_path: Path,
) -> None:
    program = tmp_path / "speak"
    config = {"models.voice.command": [str(program), "--port", "${PORT}"]}
    async with running(config) as llamasup:
        reply = await llamasup.ask("POST", SPEECH, speech())
        assert reply.status == 503
        assert f"{program} cannot be run: No such file" in reply.error["message"]
        draft = tmp_path / "draft"
        draft.write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
        draft.chmod(0o755)
        draft.rename(program)

        async def is_answered() -> bool:
            return (await llamasup.ask("POST", SPEECH, speech())).status == 200

        await eventually(is_answered)


async def test_one_that_never_gets_ready_is_told_what_was_waited_for(
    serving: Callable[..., dict[str, object]],
) -> None:
    config = serving("--load", "3600")
    async with running({**config, "engine.load_timeout": "0.3s"}) as llamasup:
        reply = await llamasup.ask("POST", SPEECH, speech())
        assert reply.status == 503
        assert "it is ready when GET /health succeeds" in reply.error["message"]


async def test_more_requests_than_slots_wait_in_the_queue(
    serving: Callable[..., dict[str, object]], journal: Journal
) -> None:
    config = serving("--hang-at", SPEECH, slots=2)
    async with running(config) as llamasup, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(llamasup.ask, "POST", SPEECH, speech())
        await eventually(lambda: len(journal.entries("request")) == 2)

        async def waits() -> bool:
            return bool((await llamasup.model_status("voice"))["waiting"] == 1)

        await eventually(waits)
        assert len(journal.entries("request")) == 2
        nursery.cancel_scope.cancel()


async def test_a_model_makes_room_for_a_server_and_a_server_for_a_model(
    serving: Callable[..., dict[str, object]], faking: Fake
) -> None:
    config = {**faking(), **serving(memory=GIB)}
    config["pool.max_loaded_models"] = 1
    async with running(config) as llamasup:
        await speaks(llamasup)
        pid = (await child_of(llamasup))["pid"]
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(1, model="fake"))
        assert reply.status == 200, reply.body
        assert not is_alive(pid)
        await speaks(llamasup)
        assert await child_of(llamasup, "fake") is None


async def test_what_it_takes_counts_as_the_memory_of_models_does(
    serving: Callable[..., dict[str, object]],
) -> None:
    config = {
        **serving(name="huge", memory={"host": 1 << 60}),
        **serving(name="voice", memory="1GiB"),
        **serving(name="on-gpu", memory={"CUDA7": GIB}),
    }
    async with running(config) as llamasup:
        reply = await llamasup.ask("POST", SPEECH, speech("huge"))
        assert (reply.status, reply.error["code"]) == (507, "insufficient_memory")
        fits = (await llamasup.ask("GET", "/modelFits")).json()
        models = {model["name"]: model for model in fits["models"]}
        voice = models["voice"]
        assert voice["path"] is None
        assert voice["program"] == sys.executable
        assert voice["begins"]["needs"] == {"host": GIB}
        assert voice["begins"]["source"] == "configuration"
        before = fits["free"]["host"]
        await speaks(llamasup)
        held = (await llamasup.ask("GET", "/modelFits")).json()
        assert before - held["free"]["host"] > GIB // 8  # other programs come and go


async def test_what_it_held_the_last_time_is_expected_if_the_operator_does_not_say(
    serving: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    config = {**serving("--eat", "64"), "folders.state": str(tmp_path / "state")}
    for source, least in (("unknown", 0), ("measured", 64 << 20)):
        async with running(config) as llamasup:
            [model] = (await llamasup.ask("GET", "/modelFits")).json()["models"]
            assert model["begins"]["source"] == source
            assert model["begins"]["needs"].get("host", 0) >= least
            await speaks(llamasup)


async def test_an_idle_server_is_unloaded_and_a_preloaded_one_is_there_at_once(
    serving: Callable[..., dict[str, object]],
) -> None:
    config = {**serving(idle_unload="0.2s"), "pool.preload": ["voice"]}
    async with running(config) as llamasup:

        async def is_loaded() -> bool:
            return await child_of(llamasup) is not None

        async def is_unloaded() -> bool:
            return await child_of(llamasup) is None

        await eventually(is_loaded)
        await eventually(is_unloaded)


async def test_a_killed_llamasup_leaves_no_server_behind(
    serving: Callable[..., dict[str, object]], journal: Journal, tmp_path: Path
) -> None:
    words = serving()["models.voice.command"]
    file = tmp_path / "llamasup.toml"
    file.write_text(
        f'server.listen = "127.0.0.1:0"\nfolders.run = "{tmp_path}/run"\n'
        f"models.voice.command = {json.dumps(words)}\n"
    )
    async with started(file) as program:
        llamasup = await program.listens(tmp_path / "run")
        await speaks(llamasup)
        program.process.send_signal(signal.SIGKILL)
        pid = (await journal.first("listens"))["pid"]
        await eventually(lambda: not is_alive(pid))


async def test_a_program_that_took_its_port_first_is_not_taken_for_it(
    serving: Callable[..., dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first port that is found free is not."""
    async with trio.open_nursery() as nursery:
        other = await trio.open_tcp_listeners(0, host="127.0.0.1")
        taken = other[0].socket.getsockname()[1]

        async def pretend(stream: trio.SocketStream) -> None:
            async with stream:
                await stream.receive_some(65536)
                await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        nursery.start_soon(trio.serve_listeners, pretend, other)
        found = iter([taken])
        really = __import__("llamasup.children.ports", fromlist=["_bound"])._bound
        monkeypatch.setattr(
            "llamasup.children.ports._bound", lambda port: next(found, None) or really(port)
        )
        async with running(serving()) as llamasup:
            await speaks(llamasup)
            assert not (await child_of(llamasup))["address"].endswith(f":{taken}")
        nursery.cancel_scope.cancel()


async def test_a_client_that_leaves_frees_the_slot(
    serving: Callable[..., dict[str, object]], journal: Journal
) -> None:
    async with running(serving("--hang-at", "/v1/completions")) as llamasup:
        async with llamasup.connect() as client:
            await client.send(request("POST", "/v1/completions", speech()))
            await journal.first("request")
        with trio.fail_after(PATIENCE):
            await speaks(llamasup)


async def test_pictures_speech_and_its_own_pages_are_routed_by_model_and_untouched(
    serving: Callable[..., dict[str, object]],
) -> None:
    config = {**serving(), **serving(name="brush")}
    async with running(config) as llamasup:
        reply = await llamasup.ask(
            "POST", "/v1/images/generations", {"model": "brush", "prompt": "a house"}
        )
        assert reply.json()["data"] == [{"b64_json": "aGVsbG8="}]
        assert await child_of(llamasup) is None
        looked = await llamasup.ask("GET", "/v1/audio/voices?model=voice")
        assert (looked.status, looked.error["code"]) == (503, "model_not_loaded")
        page = await llamasup.ask("POST", "/upstream/voice/any/page?x=1", b"as it is")
        assert page.json() == {"method": "POST", "target": "/any/page?x=1", "body": "as it is"}
        looked = await llamasup.ask("GET", "/v1/audio/voices?model=voice")
        assert looked.json()["target"] == "/v1/audio/voices?model=voice"


async def test_a_model_that_is_needed_is_unloaded_for_no_server_that_cannot_be_started(
    serving: Callable[..., dict[str, object]], faking: Fake
) -> None:
    """Two things go wrong at once: the server fails, and its failure must not wake its rival."""
    config = {**faking(), **serving("--fail", "no"), "pool.max_loaded_models": 1}
    async with running(config) as llamasup:
        for _ in range(2):
            assert (await llamasup.ask("POST", SPEECH, speech())).status == 503
            reply = await llamasup.ask("POST", "/v1/chat/completions", chat(1, model="fake"))
            assert reply.status == 200


async def test_a_server_that_dies_while_its_client_leaves_is_there_for_the_next(
    serving: Callable[..., dict[str, object]], journal: Journal
) -> None:
    async with running(serving("--hang-at", "/v1/audio/translations")) as llamasup:
        async with llamasup.connect() as client:
            await client.send(request("POST", "/v1/audio/translations", speech()))
            pid = (await journal.first("request"))["pid"]
            os.kill(pid, signal.SIGKILL)
        await speaks(llamasup)
        assert (await llamasup.model_status("voice"))["child"]["in_flight"] == 0
