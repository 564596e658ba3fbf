"""The PyPI engine as a program: its options by table, its life by running the real one."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path

import pytest
import xllamacpp

from llamasup.engine import embedded
from llamasup.engine.embedded import CannotServe, settings_from
from llamasup.models.demo import reciting_model

PROGRAM = [sys.executable, "-m", "llamasup.engine.embedded"]
ONE_THREAD = ["-t", "1"]  # two would wait for each other at every token, long on a busy machine
COUNT = [f" {number}" for number in range(3000)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "count.gguf"
    path.write_bytes(reciting_model(COUNT, context=4096, name="count"))
    return path


@pytest.fixture
def address() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="embedded-") as folder:
        yield f"{folder}/x.sock"


@contextmanager
def running(*options: object, stdin: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    command = [*PROGRAM, *ONE_THREAD, *map(str, options)]
    with subprocess.Popen(command, stdin=stdin, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[bytes], words: bytes) -> str:
    """Read the log up to the line with these words."""
    log = b""
    while words not in log:
        line = process.stderr.readline()
        assert line, log.decode()
        log += line
    return line.decode()


def answer_from(address: str, route: str, request: dict | None = None) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(address)
    headers = {"Content-Type": "application/json", "Connection": "close"}
    body = request and json.dumps(request)
    connection.request("POST" if request else "GET", route, body, headers)
    return connection.getresponse()


def get(address: str, route: str) -> http.client.HTTPResponse:
    with answer_from(address, route) as response:
        response.read()
        return response


# --- options ---


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        ("--model y.gguf", "model.path", "y.gguf"),
        ("-c 8192", "n_ctx", 8192),
        ("--ctx-size 0", "n_ctx", 0),
        ("--host /run/x.sock", "hostnames", ["/run/x.sock"]),
        ("--host 127.0.0.1,::1", "hostnames", ["127.0.0.1", "::1"]),
        ("-np 3", "n_parallel", 3),
        ("-ngl auto", "n_gpu_layers", -1),
        ("-ngl all", "n_gpu_layers", -2),
        ("--n-gpu-layers 0", "n_gpu_layers", 0),
        ("-a small,tiny", "model_alias", {"small", "tiny"}),
        ("-ctk q8_0", "cache_type_k", xllamacpp.ggml_type.GGML_TYPE_Q8_0),
        ("-ctv iq4_nl", "cache_type_v", xllamacpp.ggml_type.GGML_TYPE_IQ4_NL),
        ("-ctk bf16", "cache_type_k", xllamacpp.ggml_type.GGML_TYPE_BF16),
        ("-fa on", "flash_attn_type", 1),
        ("-fa auto", "flash_attn_type", -1),
        ("-fit off", "fit_params", False),
        ("-cram -1", "cache_ram_mib", -1),
        ("--no-slots", "endpoint_slots", False),
        ("--no-slots --slots", "endpoint_slots", True),
        ("--no-mmap", "load_mode", xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE),
        ("-lm dio", "load_mode", xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_DIRECT_IO),
        ("--rerank", "pooling_type", xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK),
        ("--pooling last", "pooling_type", xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_LAST),
        ("--no-kv-unified", "kv_unified", False),
    ],
)
def test_an_option_sets_the_parameter(arguments, field, value):
    assert settings_from(["-m", "x.gguf", *arguments.split()])[field] == value


VALUES = {
    "": "",
    "N": "1",
    "MiB": "1",
    "FILE": "x.gguf",
    "NAMES": "a,b",
    "TEMPLATE": "chatml",
    "HOST": "/run/x.sock",
    "on|off": "on",
    "on|off|auto": "auto",
    "MODE": "mmap+mlock",
    "TYPE": "q4_0",
    "KIND": "rank",
}


@pytest.mark.parametrize("option", embedded.OPTIONS, ids=lambda option: option.names)
def test_the_engine_takes_what_an_option_sets(option):
    settings = option.settings(VALUES[option.value])
    parameters = xllamacpp.CommonParams()
    embedded.configure(parameters, settings)

    assert settings == {name: attrgetter(name)(parameters) for name in settings}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--frobnicate", "error: invalid argument: --frobnicate"),
        ("-m x.gguf extra", "error: invalid argument: extra"),
        ("-c", 'error while handling argument "-c": expected value for argument'),
        ("-c many", "error while handling argument \"-c\": 'many' is not an integer"),
        ("-c 99999999999", 'error while handling argument "-c": 99999999999 is out of range'),
        ("-fa yes", "error while handling argument \"-fa\": 'yes' is not one of on, off, auto"),
        ("-c 4096", "error: --model is missing"),
    ],
)
def test_a_bad_command_line_is_explained(arguments, complaint):
    with pytest.raises(CannotServe) as caught:
        settings_from(arguments.split())

    assert str(caught.value) == complaint


def test_a_bad_command_line_exits_1_without_a_traceback():
    with running("--frobnicate") as process:
        assert process.stderr.read() == b"error: invalid argument: --frobnicate\n"
        assert process.wait() == 1


def test_help_shows_every_option_and_that_hosts_may_be_sockets():
    help = subprocess.run([*PROGRAM, "--help"], check=True, capture_output=True, text=True).stdout

    assert all(name in help for option in embedded.OPTIONS for name in option.names.split())
    (host,) = (line for line in help.splitlines() if line.startswith("--host"))
    assert "UNIX socket paths ending in .sock" in host


def test_version_is_the_engines():
    run = subprocess.run([*PROGRAM, "--version"], check=True, capture_output=True, text=True)

    target = xllamacpp.BUILD_INFO["build_target"]
    assert run.stdout == f"version: xllamacpp {xllamacpp.__version__} ({target})\n"


@pytest.mark.parametrize("arguments", [["--version"], ["-m", "x.gguf"]])
def test_a_missing_engine_says_how_to_install_it(monkeypatch, arguments):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)

    assert 'pip install "llamasup[engine]"' in embedded.main(arguments)


# --- life ---


def test_it_serves_on_a_unix_socket_token_by_token(model, address):
    options = ["-c", 4096, "-np", 2, "--no-ui", "--no-slots", "--metrics", "-a", "counter"]
    request = {"messages": [{"role": "user", "content": "Go!"}], "max_tokens": 500, "stream": True}
    with running("-m", model, "--host", address, *options) as process:
        line = wait_for(process, b"listening on")
        with answer_from(address, "/v1/chat/completions", request) as response:
            events = [event.removeprefix(b"data: ") for event in response.read().split(b"\n\n")]
        statuses = [get(address, route).status for route in ("/health", "/slots", "/metrics")]

    chunks = [json.loads(event) for event in events if event.startswith(b"{")]
    deltas = [chunk["choices"][0]["delta"].get("content") for chunk in chunks]
    assert [delta for delta in deltas if delta] == COUNT[:500]
    assert {chunk["model"] for chunk in chunks} == {"counter"}
    assert line.rstrip().endswith(f"listening on unix://{address}")
    assert statuses == [200, 501, 200]


def test_it_serves_on_a_port_that_the_log_names(model):
    with running("-m", model, "--host", "127.0.0.1", "--port", 0, "-c", 1024) as process:
        port = int(wait_for(process, b"listening on").rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/health", headers={"Connection": "close"})
        assert connection.getresponse().read() == b'{"status":"ok"}'


def test_a_failed_load_ends_in_the_engines_own_words(tmp_path, address):
    with running("-m", tmp_path / "none.gguf", "--host", address) as process:
        log = process.stderr.read().decode()
        assert process.wait() == 1

    assert "failed to open GGUF file" in log
    assert log.splitlines()[-1].endswith("exiting due to model loading error")
    assert "Traceback" not in log


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_though_a_stream_is_open(model, address, ending):
    # More than fits between the two, and nobody reads: this stream does not end by itself.
    request = {"prompt": "Go!", "n_predict": 30_000, "ignore_eos": True, "stream": True}
    with running("-m", model, "--host", address, "-c", 32768) as process:
        wait_for(process, b"listening on")
        with answer_from(address, "/completion", request):
            process.send_signal(ending)
            # By its own handler, or by the default action in the moment before it has one.
            assert process.wait(timeout=10) in (0, -ending)


@pytest.fixture
def endless_load(tmp_path: Path) -> Path:
    """A model that is never read to its end: the engine waits for it inside llama.cpp."""
    path = tmp_path / "endless.gguf"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_while_it_loads(endless_load, address, ending):
    with running("-m", endless_load, "--host", address) as process:
        wait_for(process, b"loading model")
        process.send_signal(ending)
        assert process.wait(timeout=10) == -ending


def test_it_ends_with_its_supervisor_while_it_loads(endless_load, address):
    with running("-m", endless_load, "--host", address) as process:
        wait_for(process, b"loading model")
        process.stdin.close()
        assert process.wait(timeout=10) == -signal.SIGIO


def test_it_ends_with_the_supervisor_that_holds_its_stdin(model, address):
    with running("-m", model, "--host", address, "-c", 1024) as process:
        wait_for(process, b"listening on")
        process.stdin.close()
        assert process.wait(timeout=10) in (0, -signal.SIGIO)


def test_it_ends_with_a_supervisor_at_the_other_end_of_a_socket(model, address):
    ours, theirs = socket.socketpair()
    with running("-m", model, "--host", address, "-c", 1024, stdin=theirs.fileno()) as process:
        theirs.close()
        wait_for(process, b"listening on")
        ours.close()
        assert process.wait(timeout=10) in (0, -signal.SIGIO)


def test_a_supervisor_that_is_gone_before_the_start_is_noticed(model, address):
    with running("-m", model, "--host", address, "-c", 1024) as process:
        process.stdin.close()
        assert process.wait(timeout=10) in (0, -signal.SIGIO)


def test_without_a_supervisor_it_stays(model, address):
    options = ["-m", model, "--host", address, "-c", 1024]
    with running(*options, stdin=subprocess.DEVNULL) as process:
        wait_for(process, b"listening on")
        assert get(address, "/health").status == 200
        assert process.poll() is None
