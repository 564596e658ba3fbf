"""An engine fails, and its client learns so: in the engine's own words, or by a visible cut."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.harness import FAKE, Llamasup, Reply, chat, counted, running

CHAT = "/v1/chat/completions"


# --- loading ---

BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no GGUF": (lambda model: b"GIF8" + model[4:], "invalid magic characters"),
    "empty": (lambda model: b"", "failed to read magic"),
    "cut in its header": (lambda model: model[:200], "failed to read key-value pairs"),
    "cut in its weights": (lambda model: model[: len(model) // 2], "is corrupted or incomplete"),
    "of an unknown architecture": (
        lambda model: model.replace(b"llama", b"llamx"),
        "unknown model architecture: 'llamx'",
    ),
}


@pytest.fixture(scope="module")
def sound(count_model: Path) -> bytes:
    """A model file's content as it should be."""
    return count_model.read_bytes()


async def test_a_missing_model_file_is_named_and_served_once_it_is_there(
    counting: dict[str, object], sound: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "missing.gguf"
    async with running(counting | {"models.count.path": str(path)}) as llamasup:
        message = refusal(await llamasup.ask("POST", CHAT, chat(5)))
        assert str(path) in message
        assert "No such file or directory" in message
        path.write_bytes(sound)
        assert (await llamasup.ask("POST", CHAT, chat(5))).text() == counted(5)


@pytest.mark.parametrize(("spoil", "words"), BROKEN.values(), ids=list(BROKEN))
async def test_a_broken_model_file_is_explained_and_served_once_it_is_mended(
    counting: dict[str, object],
    sound: bytes,
    tmp_path: Path,
    spoil: Callable[[bytes], bytes],
    words: str,
) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(spoil(sound))
    async with running(counting | {"models.count.path": str(path)}) as llamasup:
        assert words in refusal(await llamasup.ask("POST", CHAT, chat(5)))
        path.write_bytes(sound)
        assert (await llamasup.ask("POST", CHAT, chat(5))).text() == counted(5)
        assert (await llamasup.model_status("count"))["last_failure"] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nonsense"], "invalid argument: --nonsense"),
        (["--ctx-size", "many"], 'while handling argument "--ctx-size"'),
        (["--parallel"], 'while handling argument "--parallel": expected value for argument'),
    ],
)
async def test_an_argument_that_the_engine_refuses_is_named(
    counting: dict[str, object], arguments: list[str], words: str
) -> None:
    async with running(counting | {"models.count.extra_args": arguments}) as llamasup:
        assert words in refusal(await llamasup.ask("POST", CHAT, chat(5)))
        assert words in (await llamasup.model_status("count"))["last_failure"]


async def test_a_model_that_cannot_load_is_no_hindrance_to_the_others(
    counting: dict[str, object], tmp_path: Path
) -> None:
    async with running(counting | {"models.other.path": str(tmp_path / "no.gguf")}) as llamasup:
        refusal(await llamasup.ask("POST", CHAT, chat(5, model="other")))
        assert (await llamasup.ask("POST", CHAT, chat(5, model="count"))).text() == counted(5)


async def test_an_engine_that_does_not_run_is_explained_and_used_once_it_does(
    faking: Callable[..., Mapping[str, object]], tmp_path: Path
) -> None:
    engine = tmp_path / "llama-server"
    complaint = "error while loading shared libraries: libllama.so: cannot open it"
    write_script(engine, f"echo '{complaint}' >&2; exit 127")
    async with running({**faking(), "engine.command": str(engine)}) as llamasup:
        assert complaint in refusal(await llamasup.ask("POST", CHAT, chat(5)))
        write_script(engine, f'exec {FAKE} "$@"')
        assert (await llamasup.ask("POST", CHAT, chat(5))).text() == counted(5)


def write_script(path: Path, command: str) -> None:
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o700)


def refusal(reply: Reply) -> str:
    """The message of a reply that says that the model cannot be started."""
    assert reply.status == 503
    assert reply.headers["content-type"] == "application/json"
    assert reply.error["code"] in ("model_unavailable", "engine_unusable")
    message: str = reply.error["message"]
    assert message.startswith('model "')
    return message


# --- dying ---


async def test_a_request_after_the_engine_was_killed_is_answered_by_a_new_one(
    counting: dict[str, object],
) -> None:
    async with running(counting) as llamasup:
        for life in range(1, 4):
            reply = await llamasup.ask("POST", CHAT, chat(5))
            assert reply.status == 200, reply.body
            assert reply.text() == counted(5)
            assert (await llamasup.model_status("count"))["loads"] == life
            await kill_engine(llamasup)


async def test_an_engine_that_dies_of_every_request_is_an_error_to_its_client(
    faking: Callable[..., Mapping[str, object]],
) -> None:
    async with running(faking("--fake-die-at-byte", "-1", "--fake-death", "crash")) as llamasup:
        reply = await llamasup.ask("POST", CHAT, chat(5))
        assert reply.status == 422
        assert reply.error["code"] == "request_kills_engine"


async def kill_engine(llamasup: Llamasup) -> None:
    os.kill((await llamasup.model_status("count"))["child"]["pid"], signal.SIGKILL)
