"""The fake keeps its promises, or tests that lean on it prove nothing."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

FAKE = Path(__file__).with_name("llama_server.py")
CHAT = "/v1/chat/completions"
STREAMS = {
    "/v1/chat/completions": ("max_tokens", lambda event: event["choices"][0]["delta"]["content"]),
    "/v1/completions": ("max_tokens", lambda event: event["choices"][0]["text"]),
    "/completion": ("n_predict", lambda event: event["content"]),
    "/v1/messages": ("max_tokens", lambda event: event["delta"]["text"]),
    "/v1/responses": ("max_output_tokens", lambda event: event["delta"]),
}


class Fake:
    """A running fake on a Unix socket."""

    def __init__(self, folder: str, *options: object) -> None:
        self.address = f"{folder}/x.sock"
        self.journal_path = Path(folder, "journal")
        self.journal_path.touch()
        command = [sys.executable, FAKE, "--host", self.address, "--frobnicate", "-ngl", "99"]
        command += ["--fake-journal", self.journal_path, *options]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            start_new_session=True,
        )

    def wait_for(self, words: str) -> str:
        while words not in (line := self.process.stderr.readline().decode()):
            assert line, f"no {words!r} in the log"
        return line

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(self.address)
        return client

    def send(self, method: str, route: str, request: dict | None = None) -> socket.socket:
        body = json.dumps(request).encode() if request else b""
        head = f"{method} {route} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client = self.connect()
        client.sendall(head.encode() + body)
        return client

    def ask(
        self, method: str, route: str, request: dict | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        with self.send(method, route, request) as client:
            return read_response(client)

    def journal(self, event: str) -> list[dict]:
        entries = map(json.loads, self.journal_path.read_text().splitlines())
        return [entry for entry in entries if entry["event"] == event]

    def told(self, event: str) -> dict:
        """The first such entry of the journal, once it is there."""
        deadline = time.monotonic() + 10
        while not (entries := self.journal(event)):
            assert time.monotonic() < deadline, f"no {event!r} in the journal"
            time.sleep(0.002)
        return entries[0]

    def end(self) -> None:
        with self.process, suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def read_response(client: socket.socket) -> tuple[http.client.HTTPResponse, bytes]:
    with http.client.HTTPResponse(client) as response:
        response.begin()
        return response, response.read()


@pytest.fixture
def folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="fake-") as folder:
        yield folder


@pytest.fixture
def fake(folder, request) -> Iterator[Fake]:
    """Ready, with the options that the test is parametrized with."""
    fake = Fake(folder, *getattr(request, "param", []))
    try:
        fake.wait_for("listening on")
        yield fake
    finally:
        fake.end()


@pytest.fixture
def launch(folder) -> Iterator:
    fakes = []

    def launch(*options: object) -> Fake:
        fakes.append(Fake(folder, *options))
        return fakes[-1]

    yield launch
    for fake in fakes:
        fake.end()


def scripted(*options: object) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("fake", [options], indirect=True, ids=[""])


def tokens_of(body: bytes, route: str) -> list[str]:
    lines = [line.removeprefix("data: ") for line in body.decode().split("\n")]
    tokens = []
    for event in (json.loads(line) for line in lines if line.startswith("{")):
        try:
            tokens.append(STREAMS[route][1](event))
        except (KeyError, IndexError):
            continue  # an event without a token
    return [token for token in tokens if token]


def hello(**request: object) -> dict:
    return {"messages": [{"role": "user", "content": "Hi!"}], "max_tokens": 3, **request}


# --- being llama-server ---


@pytest.mark.parametrize("route", STREAMS)
def test_it_streams_numbers_in_the_form_of_each_api(fake, route):
    response, body = fake.ask("POST", route, {STREAMS[route][0]: 4, "stream": True})

    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert tokens_of(body, route) == [" 0", " 1", " 2", " 3"]


@pytest.mark.parametrize("route", STREAMS)
def test_it_answers_in_one_piece_too(fake, route):
    response, body = fake.ask("POST", route, {STREAMS[route][0]: 4})

    assert int(response.headers["Content-Length"]) == len(body)
    assert '" 0 1 2 3"' in body.decode()
    assert json.loads(body)


def test_it_goes_on_from_an_assistant_message(fake):
    messages = [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": " 0 1 2"}]
    _, body = fake.ask("POST", CHAT, {"messages": messages, "max_tokens": 2, "stream": True})

    assert tokens_of(body, CHAT) == [" 3", " 4"]


@scripted("-np", 2, "-c", 8192, "--alias", "tiny")
def test_it_tells_about_itself(fake):
    health, models, slots, props = (
        json.loads(fake.ask("GET", route)[1])
        for route in ("/health", "/v1/models", "/slots", "/props")
    )

    assert health == {"status": "ok"}
    assert models["data"][0]["id"] == "tiny"
    assert [slot["id"] for slot in slots] == [0, 1]
    assert (props["total_slots"], props["default_generation_settings"]["n_ctx"]) == (2, 8192)
    assert fake.ask("GET", "/nonsense")[0].status == 404


def test_it_journals_its_start_with_arguments_and_environment(launch, monkeypatch):
    monkeypatch.setenv("LLAMA_ARG_FIT", "off")
    started = launch("-c", "77").told("started")

    assert started["argv"][-2:] == ["-c", "77"]
    assert started["environment"]["LLAMA_ARG_FIT"] == "off"


def test_it_journals_requests_and_answers(fake):
    fake.ask("POST", "/tokenize?x=1", {"content": "é"})

    request = fake.told("request")
    assert (request["method"], request["target"]) == ("POST", "/tokenize?x=1")
    assert json.loads(request["body"]) == {"content": "é"}
    assert ["Host", "x"] in request["headers"]
    assert fake.told("answered")["sent"] > 0


def test_it_keeps_connections_alive_and_reads_chunked_bodies(fake):
    with fake.connect() as client:
        for _ in range(2):
            client.sendall(b"POST /tokenize HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
            client.sendall(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")
            assert read_response(client)[0].status == 200

    assert [request["body"] for request in fake.journal("request")] == ["abcde", "abcde"]


def test_it_listens_on_a_port_that_its_log_names(folder):
    command = [sys.executable, FAKE, "--host", "127.0.0.1", "--port", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stderr.readline()
        process.stderr.readline()
        port = int(process.stderr.readline().rpartition(b":")[2])
        socket.create_connection(("127.0.0.1", port)).close()
        process.stdin.close()
        assert process.wait(10) == 0


def test_a_stale_socket_makes_the_bind_fail(launch, fake):
    second = launch()

    second.wait_for("couldn't bind HTTP server socket, hostname: ")
    assert second.process.wait(10) == 1


def test_help_and_version_are_llama_servers():
    options = {"capture_output": True, "text": True, "check": True}
    help = subprocess.run([FAKE, "--help"], **options).stdout
    version = subprocess.run([FAKE, "--version"], **options).stderr

    assert "UNIX socket paths ending in .sock" in " ".join(help.split())
    for option in ("--threads-http", "--cache-ram", "--parallel", "--models-dir", "--slots"):
        assert option in help
    assert version.startswith("version: ")


# --- the log ---


@pytest.mark.parametrize(
    ("dialect", "stream", "line"),
    [
        ("current", "stderr", "I srv  llama_server: listening on unix://"),
        ("old", "stderr", "main: server is listening on unix://"),
        ("jsonl", "stdout", '"msg":"srv  llama_server: listening on unix://'),
    ],
)
def test_it_speaks_the_dialect(launch, dialect, stream, line):
    fake = launch("--fake-dialect", dialect)
    fake.told("ready")
    log = getattr(fake.process, stream)

    assert "loading" in log.readline().decode()
    assert "model loaded" in log.readline().decode()
    assert line in log.readline().decode()


def test_a_silent_fake_says_nothing(launch):
    fake = launch("--fake-dialect", "silent")
    fake.told("ready")
    fake.process.stdin.close()

    assert fake.process.stderr.read() + fake.process.stdout.read() == b""


@scripted("--fake-flood", 50)
def test_it_floods_at_each_request(fake):
    fake.ask("POST", CHAT, hello())
    fake.process.stdin.close()

    assert fake.process.stderr.read().count(b"update_slots") == 50


# --- loading ---


def test_while_it_loads_every_route_is_unavailable(launch):
    fake = launch("--fake-load-seconds", "0.5", "--fake-load-line-every", "0.1")
    fake.wait_for("still loading")
    response, body = fake.ask("GET", "/health")

    assert response.status == 503
    assert json.loads(body)["error"]["message"] == "Loading model"
    fake.wait_for("listening on")
    assert fake.ask("GET", "/health")[0].status == 200


def test_a_failed_load_says_why_and_exits_1(launch):
    fake = launch("--fake-fail-load", "cudaMalloc failed: out of memory")

    assert fake.process.wait(10) == 1
    log = fake.process.stderr.read().decode().splitlines()
    assert log[-2].endswith("cudaMalloc failed: out of memory")
    assert log[-1].endswith("exiting due to model loading error")


def test_a_load_may_fail_above_some_context_only(launch):
    failure = ["--fake-fail-load", "out of memory", "--fake-fail-above-ctx", 4096]

    assert launch(*failure, "-c", 8192).process.wait(10) == 1


@scripted("--fake-fail-load", "out of memory", "--fake-fail-above-ctx", 4096, "-c", 4096)
def test_a_load_succeeds_up_to_that_context(fake):
    assert fake.ask("GET", "/health")[0].status == 200


def test_it_may_never_get_ready(launch):
    fake = launch("--fake-never-ready")
    fake.wait_for("loading model")

    assert fake.ask("GET", "/health")[0].status == 503
    assert fake.journal("ready") == []


def test_it_may_exit_after_it_was_ready(launch):
    fake = launch("--fake-exit-after-ready", "0.05", "--fake-exit-status", "7")

    assert fake.process.wait(10) == 7
    assert fake.journal("exited")[0]["at"] - fake.journal("ready")[0]["at"] >= 0.05


def test_it_may_follow_the_script_in_its_first_lives_only(launch):
    failing = ["--fake-fail-load", "out of memory", "--fake-scripted-lives", 2]

    for _ in range(2):
        fake = launch(*failing)
        assert fake.process.wait(10) == 1
        os.unlink(fake.address)
    launch(*failing).wait_for("listening on")


# --- answers by the script ---


@scripted("--fake-echo")
def test_it_echoes_the_request(fake):
    _, body = fake.ask("POST", "/v1/anything?a=b", {"x": 1})

    echo = json.loads(body)
    assert (echo["method"], echo["target"], echo["body"]) == (
        "POST",
        "/v1/anything?a=b",
        '{"x": 1}',
    )
    assert ["Host", "x"] in echo["headers"]


@scripted("--fake-error", "500 decode() failed: std::bad_alloc")
def test_it_answers_with_the_error(fake):
    response, body = fake.ask("POST", CHAT, hello(stream=True))

    assert response.status == 500
    assert json.loads(body)["error"]["message"] == "decode() failed: std::bad_alloc"


@pytest.mark.parametrize(
    ("fake", "header"),
    [
        (["--fake-framing", "length"], "Content-Length: 83"),
        (["--fake-framing", "chunked"], "Transfer-Encoding: chunked"),
        (["--fake-framing", "close"], "Connection: close"),
    ],
    indirect=["fake"],
)
def test_it_frames_whole_answers_as_told(fake, header):
    response, body = fake.ask("POST", "/completion", {"n_predict": 19})

    assert header in response.headers.as_string()
    assert json.loads(body)["content"].split() == [str(number) for number in range(19)]


@scripted("--fake-first-byte-delay", 0.1, "--fake-token-delay", 0.01)
def test_it_takes_its_time(fake):
    began = time.monotonic()
    fake.ask("POST", "/completion", {"n_predict": 9, "stream": True})

    assert time.monotonic() - began >= 0.1 + 9 * 0.01


# --- clients that leave ---


@scripted("--fake-first-byte-delay", 60)
def test_it_notices_at_once_that_a_client_left_before_the_first_byte(fake):
    with fake.send("POST", CHAT, hello()):
        fake.told("request")
        left = time.monotonic()

    closed = fake.told("client closed")
    assert 0 <= closed["at"] - left < 0.5
    assert closed["sent"] == 0


@scripted("--fake-token-delay", 0.01)
def test_it_notices_at_once_that_a_client_left_in_mid_stream(fake):
    with fake.send("POST", CHAT, hello(max_tokens=10_000, stream=True)) as client:
        client.recv(4096)
        client.recv(4096)
        left = time.monotonic()

    closed = fake.told("client closed")
    assert 0 <= closed["at"] - left < 0.5
    assert closed["sent"] > 0
    assert fake.journal("answered") == []


@scripted("-np", 1, "--fake-first-byte-delay", 60)
def test_a_request_beyond_the_slots_waits_without_a_word(fake):
    with fake.send("POST", CHAT, hello()):
        fake.told("request")
        with fake.send("POST", CHAT, hello()) as queued:
            queued.settimeout(0.05)
            with pytest.raises(TimeoutError):
                queued.recv(1)
        fake.told("client closed")

    assert [request["busy"] for request in fake.journal("request")] == [0, 1]


# --- deaths ---


def received(client: socket.socket) -> bytes:
    """All that comes until the end, be it clean (as EOF) or not (as ConnectionResetError)."""
    data = b""
    with client:
        while more := client.recv(4096):
            data += more
    return data


@scripted("--fake-die-at-byte", 100)
def test_it_is_killed_at_a_byte_of_the_body(fake):
    data = received(fake.send("POST", CHAT, hello()))

    assert len(data.partition(b"\r\n\r\n")[2]) == 100
    assert fake.process.wait(10) == -signal.SIGKILL
    assert fake.told("died")["sent"] == 100


@scripted("--fake-die-at-byte", 0)
def test_it_is_killed_right_after_the_head(fake):
    assert received(fake.send("POST", CHAT, hello())).endswith(b"\r\n\r\n")


@scripted("--fake-die-at-byte", -1)
def test_it_is_killed_before_the_head(fake):
    assert received(fake.send("POST", CHAT, hello())) == b""
    assert fake.process.wait(10) == -signal.SIGKILL


@scripted("--fake-die-at-byte", 100, "--fake-death", "close")
def test_it_closes_the_connection_in_mid_stream_and_lives(fake):
    data = received(fake.send("POST", CHAT, hello(stream=True)))

    assert data.count(b"data: ") == 1
    assert not data.endswith(b"0\r\n\r\n")
    assert fake.ask("GET", "/health")[0].status == 200


@scripted("--fake-die-at-byte", 100, "--fake-death", "reset")
def test_it_resets_the_connection_and_lives(fake):
    with pytest.raises(ConnectionResetError):
        received(fake.send("POST", CHAT, hello(stream=True)))
    assert fake.ask("GET", "/health")[0].status == 200


# --- endings ---


def test_a_signal_ends_it(fake):
    fake.process.terminate()

    assert fake.process.wait(10) == 0
    assert (fake.told("signal")["name"], fake.told("signal")["ignored"]) == ("SIGTERM", False)


@scripted("--fake-ignore-term")
def test_it_may_ignore_signals(fake):
    fake.process.terminate()

    assert fake.told("signal")["ignored"]
    assert fake.ask("GET", "/health")[0].status == 200


def test_it_ends_with_the_holder_of_its_stdin(fake):
    fake.process.stdin.close()

    assert fake.process.wait(10) == 0
    assert fake.told("stdin closed")


@scripted("--fake-ignore-stdin")
def test_it_may_ignore_the_end_of_stdin(fake):
    fake.process.stdin.close()

    assert fake.ask("GET", "/health")[0].status == 200
    assert fake.journal("stdin closed") == []


@scripted("--fake-grandchild-holds-pipes")
def test_a_grandchild_may_hold_its_pipes_in_the_same_group(fake):
    fake.process.kill()
    fake.process.wait(10)
    grandchild = fake.told("grandchild")["grandchild"]

    os.set_blocking(fake.process.stderr.fileno(), False)
    with pytest.raises(BlockingIOError):
        os.read(fake.process.stderr.fileno(), 1)
    assert os.getpgid(grandchild) == fake.process.pid
