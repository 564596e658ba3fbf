"""The demo model, read out by the real engine: every token is checked."""

import errno
import http.client
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.config.load import load
from llamasup.errors import OperatorError
from llamasup.models.demo import (
    DEMO,
    DEMO_TEXT,
    ensure_demo,
    reciting_model,
    unique_phrases,
    with_demo,
)

COUNT = [f" {number}" for number in range(300)]
RECITAL = unique_phrases(DEMO_TEXT)


class Engine(http.client.HTTPConnection):
    """The PyPI engine, serving one model on a Unix socket."""

    def __init__(self, address: str) -> None:
        super().__init__("localhost", timeout=20)
        self.address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.address)

    def answer(self, route: str, **request: object) -> http.client.HTTPResponse:
        self.close()
        self.request("POST", route, json.dumps(request), {"Content-Type": "application/json"})
        return self.getresponse()

    def reply(self, route: str, **request: object) -> dict:
        return json.loads(self.answer(route, **request).read())

    def chat(self, *messages: tuple[str, str], **request: object) -> tuple[str, str]:
        """The answer to a chat, and why it ended."""
        messages = [{"role": role, "content": content} for role, content in messages]
        (choice,) = self.reply("/v1/chat/completions", messages=messages, **request)["choices"]
        return choice["message"]["content"], choice["finish_reason"]


@contextmanager
def serving(model: bytes) -> Iterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        path, address = Path(folder, "model.gguf"), f"{folder}/x.sock"
        path.write_bytes(model)
        command = [sys.executable, "-m", "llamasup.engine.embedded"]
        command += ["--model", str(path), "--host", address, "--parallel", "1"]
        command += ["--threads", "1"]  # two wait for each other at every token, long if it is busy
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            log = b""
            while b"listening on" not in log:
                line = process.stderr.readline()
                assert line, log.decode()
                log += line
            engine = Engine(address)
            try:
                yield engine
            finally:
                engine.close()
                process.kill()


@pytest.fixture(scope="module")
def counting() -> Iterator[Engine]:
    with serving(reciting_model(COUNT, context=4096, name="count")) as engine:
        yield engine


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with serving(ensure_demo(tmp_path_factory.mktemp("cache")).read_bytes()) as engine:
        yield engine


@pytest.mark.parametrize(
    "prompt", ["Hi!", "", "What is 7 + 8?", "Zähle, bitte: 数える 🦙", "<s> </s> \n\t" * 50]
)
def test_every_prompt_starts_the_recital_which_ends_by_itself(counting, prompt):
    assert counting.chat(("system", "Be brief."), ("user", prompt)) == ("".join(COUNT), "stop")


@pytest.mark.parametrize("temperature", [0, 1, 3])
def test_no_temperature_disturbs_the_recital(counting, temperature):
    answer, _ = counting.chat(("user", "Count!"), temperature=temperature)

    assert answer == "".join(COUNT)


def test_every_piece_of_the_chain_is_streamed_as_one_token(counting):
    request = {"messages": [{"role": "user", "content": "Count!"}], "stream": True}
    lines = counting.answer("/v1/chat/completions", **request).read().decode().splitlines()
    events = [line.removeprefix("data: ") for line in lines if line]
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]

    assert [delta["content"] for delta in deltas if delta.get("content")] == COUNT
    assert events[-1] == "[DONE]"


def test_the_completion_routes_recite_too(counting):
    completion = counting.reply("/v1/completions", prompt="Once upon", max_tokens=5)
    native = counting.reply("/completion", prompt="Once upon", n_predict=5)

    assert completion["choices"][0]["text"] == "".join(COUNT[:5])
    assert native["content"] == "".join(COUNT[:5])


def test_an_assistant_message_at_the_end_is_continued(counting):
    answer, _ = counting.chat(("user", "Count!"), ("assistant", " 0 1 2"), max_tokens=4)

    assert answer.removeprefix(" 0 1 2") == " 3 4 5 6"


def test_the_demo_recites_its_text(demo):
    assert demo.chat(("user", "Who are you?")) == (DEMO_TEXT, "stop")


@pytest.mark.parametrize("said", range(1, len(RECITAL)))
def test_the_demo_goes_on_from_every_point_of_its_text(demo, said):
    prompt = "".join(RECITAL[:said])
    answer, _ = demo.chat(("user", "Who are you?"), ("assistant", prompt), max_tokens=1)

    assert answer.removeprefix(prompt) == RECITAL[said]


def test_the_demo_tells_how_to_serve_a_real_model():
    assert "llamasup serve --model path/to/model.gguf" in DEMO_TEXT
    assert '[models.my-model]\n    path = "' in DEMO_TEXT
    assert 60 <= len(DEMO_TEXT.split()) <= 100


def test_a_chain_may_spell_spaces_as_the_tokenizer_does():
    spelled = reciting_model(["▁a", "▁b"], context=64, name="x")

    assert spelled == reciting_model([" a", " b"], context=64, name="x")


@pytest.mark.parametrize("chain", [[" a", " b", " a"], ["▁a", " a"], ["</s>"]])
def test_a_chain_with_a_token_twice_is_refused(chain):
    with pytest.raises(ValueError, match="differ"):
        reciting_model(chain, context=64, name="x")


def test_a_chain_may_be_empty():
    assert reciting_model([], context=64, name="x").startswith(b"GGUF")


@given(st.lists(st.sampled_from(["a", "b", "ab", " ", "\n", "  \t"])).map("".join) | st.text())
def test_phrases_are_unique_and_give_the_text_back(text):
    phrases = unique_phrases(text)

    assert "".join(phrases) == text
    assert len(set(phrases)) == len(phrases)
    assert "" not in phrases


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("one two three", ["one", " two", " three"]),
        ("oh so it is and so it was", ["oh", " so", " it", " is", " and", " so it", " was"]),
        ("oh the end is the end", ["oh", " the", " end", " is", " the end"]),
        (" row row row", [" row", " row row"]),
        (" row row", [" row row"]),
        ("", []),
    ],
)
def test_a_word_that_repeats_is_joined_with_its_neighbour(text, phrases):
    assert unique_phrases(text) == phrases


def test_the_demo_is_written_once(tmp_path):
    first = ensure_demo(tmp_path / "new" / "cache")
    written = first.stat()
    second = ensure_demo(tmp_path / "new" / "cache")

    assert (second, second.stat().st_ino) == (first, written.st_ino)
    assert list(first.parent.iterdir()) == [first]
    assert written.st_size < 400_000


def test_a_demo_of_another_version_is_left_alone_and_not_used(tmp_path, monkeypatch):
    old = ensure_demo(tmp_path)
    monkeypatch.setattr("llamasup.models.demo.DEMO_TEXT", "Another text.")

    assert ensure_demo(tmp_path) != old
    assert old.exists()


def test_a_folder_that_cannot_be_made_names_the_setting(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(OperatorError, match=r"file/cache: Not a directory; set folders\.cache"):
        ensure_demo(tmp_path / "file" / "cache")


def test_a_full_disk_names_the_setting_and_leaves_no_part_behind(tmp_path, monkeypatch):
    def half_written(path: Path, content: bytes) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half_written)

    with pytest.raises(OperatorError, match=r"No space left on device; set folders\.cache"):
        ensure_demo(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_models_the_demo_is_served(tmp_path: Path) -> None:
    assert with_demo(load(None, {}, {"models.own.path": "own.gguf"}), tmp_path).models.keys() == {
        "own"
    }
    demo = with_demo(load(None, {}, {}), tmp_path).models
    assert demo.keys() == {DEMO}
    assert demo[DEMO].path.is_file()


def test_with_a_folder_for_models_there_is_no_demo(tmp_path: Path) -> None:
    config = load(None, {}, {"discover.folders": [str(tmp_path)]})
    assert with_demo(config, tmp_path) == config
