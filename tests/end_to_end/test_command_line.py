"""The command line as operators meet it: what it says, what it serves, and with what it exits.

Each command runs in a home of its own, with no llama-server on PATH and no variable of ours set.
"""

from __future__ import annotations

import json
import os
import pty
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import trio
from attrs import frozen

from llamasup import __version__
from llamasup.config.load import load
from llamasup.models.demo import DEMO_TEXT
from tests.conftest import EMPTY_MODEL
from tests.harness import (
    FAKE,
    LLAMASUP,
    PATIENCE,
    REPOSITORY,
    Llamasup,
    Program,
    chat,
    counted,
    eventually,
    limited,
    started,
)

CHAT = "/v1/chat/completions"
ANY_PORT = ("--listen", "127.0.0.1:0")
WRONG = 2


@frozen
class Home:
    """Where an operator works: the current folder, and the environment."""

    folder: Path
    environment: dict[str, str]

    def run(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """`llamasup` with `arguments`, to its end."""
        return subprocess.run(
            [*LLAMASUP, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def serve(
        self, *arguments: str | Path, under: Sequence[str] = (), **variables: str
    ) -> AbstractAsyncContextManager[Program]:
        """`llamasup serve` with `arguments`."""
        environ = self.environment | variables
        return started(*arguments, cwd=self.folder, environ=environ, under=under)

    async def listens(self, program: Program) -> Llamasup:
        """The program, once it listens."""
        return await program.listens(self.folder / "run" / "llamasup")


@pytest.fixture
def home() -> Iterator[Home]:
    with TemporaryDirectory(prefix="llamasup-test-") as folder:
        for name in ("bin", "cache", "run"):
            (Path(folder) / name).mkdir()
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LLAMASUP", "XDG"))}
        yield Home(
            Path(folder),
            {
                **inherited,
                "HOME": folder,
                "PATH": f"{folder}/bin",
                "PYTHONPATH": str(REPOSITORY),
                "XDG_CACHE_HOME": f"{folder}/cache",
                "XDG_RUNTIME_DIR": f"{folder}/run",
            },
        )


# --- serve ---


async def test_without_anything_the_demo_is_served_and_says_how_to_go_on(home: Home) -> None:
    async with home.serve(*ANY_PORT) as program:
        llamasup = await home.listens(program)
        await program.hears("llamasup serve --model path/to/model.gguf")
        assert '"demo" model' in program.said
        reply = await llamasup.ask("POST", CHAT, chat(1000))
        assert reply.text() == DEMO_TEXT
        assert reply.complete
        engine = (await llamasup.status())["engine"]
        assert "llamasup.engine.embedded" in engine["command"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="the greeting's command needs curl")
async def test_the_greetings_own_curl_command_works_as_it_is_printed(home: Home) -> None:
    async with home.serve(*ANY_PORT) as program:
        await home.listens(program)
        await program.hears("Serve a model of your own")
        command = program.said[program.said.index("curl ") : program.said.index("Serve a model")]
        past_proxies = os.environ | {"NO_PROXY": "127.0.0.1"}
        asked = await trio.run_process(command, shell=True, env=past_proxies, capture_stdout=True)
        answer = json.loads(asked.stdout)
        assert answer["choices"][0]["message"]["content"] == DEMO_TEXT


async def test_the_configuration_of_the_repository_is_served_as_it_stands(home: Home) -> None:
    async with home.serve(REPOSITORY / "llamasup.toml", *ANY_PORT) as program:
        llamasup = await home.listens(program)
        assert str(REPOSITORY / "llamasup.toml") in program.said
        assert (await llamasup.ask("POST", CHAT, chat(1000))).text() == DEMO_TEXT


async def test_it_opens_as_many_files_as_the_system_grants_and_says_if_those_are_too_few(
    home: Home,
) -> None:
    before = _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # which it inherits
    try:
        async with home.serve(*ANY_PORT, LLAMASUP_SERVER_MAX_CONNECTIONS="1000000") as program:
            await home.listens(program)
            granted = psutil.Process(program.process.pid).rlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert granted == (min(hard, 1 << 20), hard)
    assert "server.max_connections (1000000) may take 2000256 open files" in program.said


async def test_the_default_number_of_connections_fits_and_the_greeting_says_so(
    home: Home,
) -> None:
    async with home.serve(*ANY_PORT, under=limited("-n 1024")) as program:
        await home.listens(program)
        await program.hears("--models-dir path/to/models")
    assert "connections: 384 at once, for the limit on open files allows no more" in program.said
    assert "WARNING" not in program.said


def test_a_model_file_may_have_a_name_that_is_no_text(home: Home, count_model: Path) -> None:
    shutil.copy(count_model, os.fsencode(home.folder) + b"/caf\xe9.gguf")
    done = home.run("models", "--models-dir", home.folder, PYTHONIOENCODING="utf-8:strict")
    assert done.returncode == 0, done.stderr
    assert "caf\\udce9.gguf" in done.stdout


async def test_a_model_file_is_served_under_its_own_name(home: Home, count_model: Path) -> None:
    async with home.serve(*ANY_PORT, "--model", count_model) as program:
        llamasup = await home.listens(program)
        await program.hears("models: count")
        assert "demo" not in program.said
        assert (await llamasup.ask("POST", CHAT, chat(5, model="count"))).text() == counted(5)


async def test_the_files_of_a_folder_are_served_and_counted(home: Home, count_model: Path) -> None:
    shutil.copy(count_model, home.folder / "bin")
    async with home.serve(*ANY_PORT, "--models-dir", "bin") as program:
        llamasup = await home.listens(program)
        await program.hears(f"models in {home.folder / 'bin'}: 1\n")
        assert (await llamasup.ask("POST", CHAT, chat(5, model="count"))).text() == counted(5)


async def test_a_folder_without_models_says_what_to_do_and_there_is_no_demo(home: Home) -> None:
    async with home.serve(*ANY_PORT, "--models-dir", "cache", "--models-dir", "gone") as program:
        llamasup = await home.listens(program)
        await program.hears(f"models in {home.folder / 'gone'}: it cannot be read (No such file")
        assert f"models in {home.folder / 'cache'}: none yet; put GGUF files there" in program.said
        assert "demo" not in program.said
        assert (await llamasup.ask("GET", "/v1/models")).json()["data"] == []


async def test_the_file_yields_to_the_environment_and_both_to_flags(
    home: Home, count_model: Path
) -> None:
    (home.folder / "llamasup.toml").write_text(
        f"""
        [server]
        listen = "nowhere at all"
        path_prefixes = ["/from-the-file"]
        [models.counter]
        path = "{count_model}"
        """
    )
    variables = {"LLAMASUP_SERVER_LISTEN": "127.0.0.1:0", "LLAMASUP_ENGINE_COMMAND": "/no/such"}
    async with home.serve("--set", "engine.command=embedded", **variables) as program:
        llamasup = await home.listens(program)
        await program.hears("configuration: ")
        assert "llamasup.toml" in program.said
        reply = await llamasup.ask("POST", f"/from-the-file{CHAT}", chat(5, model="counter"))
        assert reply.text() == counted(5)


async def test_a_variable_names_the_file(home: Home) -> None:
    elsewhere = home.folder / "elsewhere.toml"
    elsewhere.write_text('server.listen = "127.0.0.1:0"\nserver.path_prefixes = ["/here"]\n')
    async with home.serve(LLAMASUP_CONFIG=str(elsewhere)) as program:
        llamasup = await home.listens(program)
        await program.hears("elsewhere.toml")
        assert (await llamasup.ask("GET", "/here/health")).status == 200


async def test_a_port_in_use_is_told_in_one_clear_line(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = home.run("serve", "--listen", address)
    assert done.returncode == WRONG
    assert done.stderr.startswith(f"cannot listen on {address}: Address already in use; ")
    assert len(done.stderr.splitlines()) == 1


# --- check ---


def test_check_is_content_with_the_configuration_of_the_repository(home: Home) -> None:
    done = home.run("check", REPOSITORY / "llamasup.toml")
    assert done.returncode == 0, done.stderr
    assert "is fine" in done.stdout
    assert done.stderr == ""


def test_what_check_shows_is_a_file_that_means_the_same(home: Home, count_model: Path) -> None:
    original = home.folder / "original.toml"
    original.write_text(
        f"""
        [server]
        listen = ["127.0.0.1:0", "unix:/tmp/x.sock"]
        max_body = "3MiB"
        [engine]
        env = {{ GGML_TRACE = "a \\"quoted\\" word" }}
        [models."a.model"]
        path = "{count_model}"
        aliases = ["one", "two"]
        """
    )
    shown = home.folder / "shown.toml"
    done = home.run("check", original, "--show")
    assert done.returncode == 0, done.stderr
    shown.write_text(done.stdout)
    assert load(shown, {}, {}) == load(original, {}, {})


def test_check_tells_everything_that_is_wrong_with_a_file_at_once(home: Home) -> None:
    file = home.folder / "bad.toml"
    file.write_text(
        """
        [server]
        listne = "127.0.0.1:8080"
        max_body = "much"
        [models.m]
        path = "m.gguf"
        parallel = 0
        """
    )
    done = home.run("check", file)
    assert done.returncode == WRONG
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"{file}") for line in lines)
    assert '"listen"' in next(line for line in lines if "listne" in line)
    assert "server.max_body" in done.stderr
    assert "models.m.parallel" in done.stderr


def test_check_tells_everything_that_is_missing_at_once(home: Home) -> None:
    missing = ("--model", "one.gguf", "--model", "two.gguf", "--engine", "/no/such/engine")
    done = home.run("check", *missing)
    assert done.returncode == WRONG
    assert len(done.stderr.splitlines()) == 3
    for word in ("one.gguf", "two.gguf", "/no/such/engine"):
        assert word in done.stderr


def test_check_tells_what_is_wrong_with_a_certificate(home: Home) -> None:
    (home.folder / "broken.pem").write_text("broken")
    for name, why in (("broken.pem", "no certificate with its key"), ("none.pem", "No such file")):
        flags = ("--listen", "https://:0", "--set", f"server.tls_certificate={name}")
        done = home.run("check", *flags)
        assert done.returncode == WRONG
        assert f"{home.folder / name} cannot be used: " in done.stderr
        assert why in done.stderr
        assert "see server.tls_certificate" in done.stderr


def test_check_counts_the_models_of_folders(home: Home) -> None:
    for path in ("a.gguf", "b-00001-of-00002.gguf", "b-00002-of-00002.gguf"):
        (home.folder / "cache" / path).write_bytes(EMPTY_MODEL)
    done = home.run("check", "--models-dir", "cache", "--set", "server.default_model=A")
    assert done.returncode == 0, done.stderr
    assert "is fine: 2 models; " in done.stdout
    assert f"models in {home.folder / 'cache'}: 2" in done.stdout


def test_check_tells_which_files_are_no_models(home: Home) -> None:
    cache = home.folder / "cache"
    (cache / "whole.Q4_0.gguf").write_bytes(EMPTY_MODEL)
    (cache / "page.gguf").write_text("<html>404</html>")
    (cache / "part.gguf").write_bytes(EMPTY_MODEL[:20])
    (home.folder / "own.gguf").write_text("<html>404</html>")
    flags = ("--models-dir", "cache", "--model", "own.gguf", "--set", "server.default_model=whole")
    done = home.run("check", *flags)
    assert done.returncode == WRONG
    own, page, part = done.stderr.splitlines()
    assert own.startswith(
        f"command line: models.own.path: {home.folder / 'own.gguf'}: it begins with"
    )
    assert page.startswith(f"{cache / 'page.gguf'}: it begins with b'<htm', not with b'GGUF'")
    assert part.startswith(f"{cache / 'part.gguf'}: it is cut off")


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ("no-such.gguf", "No such file or directory"),
        ("bin", "Is a directory"),
        ("page.gguf", "it begins with b'<htm', not with b'GGUF'"),
        ("pipe.gguf", "it is no regular file"),
    ],
)
def test_a_slip_in_the_name_of_a_model_is_told_at_the_start(
    home: Home, model: str, why: str
) -> None:
    (home.folder / "page.gguf").write_text("<html>404</html>")
    os.mkfifo(home.folder / "pipe.gguf")
    done = home.run("serve", *ANY_PORT, "--model", model)
    assert done.returncode == WRONG
    assert f"--model {model}: {why}" in done.stderr


async def test_a_closed_terminal_ends_llamasup_and_its_engines(home: Home) -> None:
    model = home.folder / "m.gguf"
    model.write_bytes(EMPTY_MODEL)
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(home.folder)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # we may be run by nohup, and pass that on
        command = [*LLAMASUP, "serve", *ANY_PORT, "--engine", FAKE, "--model", str(model)]
        command += ["--set", 'pool.preload=["m"]']
        os.execve(command[0], command, home.environment)
    try:
        engines: list[psutil.Process] = []

        def is_loaded() -> bool:
            with suppress(BlockingIOError):
                os.read(terminal, 65536)
            with suppress(psutil.NoSuchProcess):
                children = psutil.Process(pid).children(recursive=True)
                # Not those that are only asked what they are.
                engines[:] = [child for child in children if "--host" in child.cmdline()]
            return bool(engines)

        os.set_blocking(terminal, False)
        await eventually(is_loaded)
        os.close(terminal)
        with trio.fail_after(PATIENCE):
            _, status = await trio.to_thread.run_sync(os.waitpid, pid, 0, abandon_on_cancel=True)
        assert os.waitstatus_to_exitcode(status) == 0
        assert not [engine for engine in engines if engine.is_running()]
    except BaseException:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
        raise


def test_check_tells_what_is_missing_in_folders(home: Home) -> None:
    (home.folder / "llamasup.toml").write_text(
        """
        server.default_model = "x"
        pool.preload = ["y"]
        discover.folders = ["gone", "cache"]
        [models.seeing]
        path = "bin"
        mmproj = "eyes.gguf"
        """
    )
    done = home.run("check")
    assert done.returncode == WRONG
    place = f"{home.folder / 'llamasup.toml'}: "
    assert done.stderr.splitlines() == [
        f"{place}models.seeing.path: {home.folder / 'bin'}: Is a directory;"
        " write the path of a GGUF file",
        f"{place}models.seeing.mmproj: {home.folder / 'eyes.gguf'}: No such file or directory;"
        " write the path of a GGUF file",
        f"{place}discover.folders: {home.folder / 'gone'}: No such file or directory;"
        " make it, or write another folder",
        f'{place}server.default_model: no folder holds a model "x"',
        f'{place}pool.preload: no folder holds a model "y"',
    ]


def test_check_repeats_what_a_broken_engine_says(home: Home) -> None:
    complaint = "error while loading shared libraries: libllama.so: cannot open it"
    engine = script(home, f"echo '{complaint}' >&2; exit 127")
    done = home.run("check", "--engine", engine)
    assert done.returncode == WRONG
    assert complaint in done.stderr


def test_check_names_the_engine_that_it_found_on_path(home: Home) -> None:
    engine = script(home, f'exec {FAKE} "$@"')
    done = home.run("check")
    assert done.returncode == 0, done.stderr
    assert str(engine) in done.stdout
    assert "build 11669, commit Fake" in done.stdout


def script(home: Home, command: str) -> Path:
    """A llama-server on PATH that is a shell script."""
    path = home.folder / "bin" / "llama-server"
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o700)
    return path


# --- anything else ---


def test_the_version_is_told(home: Home) -> None:
    done = home.run("--version")
    assert done.returncode == 0
    assert done.stdout == f"llamasup {__version__}\n"


def test_the_help_of_serve_tells_its_flags(home: Home) -> None:
    done = home.run("serve", "--help")
    assert done.returncode == 0
    for flag in ("--model", "--models-dir", "--listen", "--engine", "--set", "FILE"):
        assert flag in done.stdout


BAD_FILES = {
    "not-toml.toml": "[server\nlisten = 1",
    "not-text.toml": "\N{LATIN SMALL LETTER U WITH DIAERESIS}",
    "wrong-table.toml": "server = 1",
}
MISTAKES = {
    "": "COMMAND",
    "nonsense": "nonsense",
    "serve --nonsense": "--nonsense",
    "serve no-such.toml": "no-such.toml: there is no such file",
    "serve .": "this is a folder",
    "serve not-toml.toml": "not-toml.toml, line 1",
    "serve not-text.toml": "not-text.toml",
    "serve wrong-table.toml": "server",
    "serve --set nonsense": "nonsense",
    "serve --set server.listne=:1": '"listen"',
    "serve --set server.max_body=much": "server.max_body",
    "serve --set models.m.parallel=2": "models.m.path",
    'serve --set pool.preload=["m"]': '"m"',
    "serve --listen nonsense": "nonsense",
    "serve --listen 192.0.2.1:80": "cannot listen on 192.0.2.1:80",
    "serve --listen unix:/no/such/x.sock": "cannot listen on unix:/no/such/x.sock",
    "serve --engine /no/such/engine": "/no/such/engine does not exist",
    "serve --engine .": "engine.command",
    "serve --set folders.run=/dev/null/run": "folders.run",
    f"serve --set folders.run=/tmp/{'x' * 100}": "folders.run",
    "serve --set folders.cache=/dev/null/cache": "folders.cache",
    "check no-such.toml": "no-such.toml: there is no such file",
    "check --engine /no/such/engine": "/no/such/engine does not exist",
}


@pytest.mark.parametrize(("words", "told"), MISTAKES.items(), ids=list(MISTAKES))
def test_a_mistake_is_told_without_a_traceback(home: Home, words: str, told: str) -> None:
    for name, content in BAD_FILES.items():
        (home.folder / name).write_bytes(content.encode("latin-1"))
    done = home.run(*shlex.split(words.replace('"', r"\"")), LLAMASUP_SERVER_LISTEN="127.0.0.1:0")
    assert done.returncode == WRONG
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_two_model_files_of_one_name_are_told_and_none_is_dropped(home: Home) -> None:
    done = home.run("check", "--model", "a/x.gguf", "--model", "b/x.gguf")
    assert done.returncode == 2
    assert 'a/x.gguf and --model b/x.gguf: both would be called "x"' in done.stderr


@pytest.mark.parametrize("command", ["check", "models"])
def test_only_serving_loads_a_web_server(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "llamasup", command, "--help"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert "llamasup.cli.models" in done.stderr
    assert "hypercorn" not in done.stderr
