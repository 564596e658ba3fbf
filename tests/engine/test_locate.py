"""The engine is found in one order everywhere, and one that cannot be run says why itself."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from llamasup.engine.argv import environment
from llamasup.engine.locate import EMBEDDED, Engine, Program, ask, described, locate
from llamasup.errors import EngineUnusable, ModelUnavailable
from llamasup.processes.asking import StillRunning
from tests.harness import out_of_descriptors

HELP = (
    "-m, --model FNAME   model path\n--host HOST   address, or UNIX\n      socket ending in .sock\n"
)


def executable(path: Path, content: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    path.chmod(0o755)
    return path


@pytest.fixture
def no_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the embedded engine were not installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.fixture
def everywhere(tmp_path: Path) -> dict[str, Path]:
    """An engine at every place where one is looked for."""
    return {
        "llama-server": executable(tmp_path / "bin" / "llama-server"),
        "llama": executable(tmp_path / "bin" / "llama"),
        "older": executable(tmp_path / "cache" / "engines" / "b11000" / "llama-server"),
        "newer": executable(tmp_path / "cache" / "engines" / "b11669" / "llama-server"),
    }


def found(command: str, tmp_path: Path) -> tuple[str, ...]:
    return locate(command, {"PATH": str(tmp_path / "bin")}, tmp_path / "cache").command


# --- where ---


def test_auto_takes_path_before_the_cache_and_the_embedded_engine_last(
    everywhere: dict[str, Path], tmp_path: Path
) -> None:
    assert found("auto", tmp_path) == (str(everywhere["llama-server"]),)
    everywhere["llama-server"].unlink()
    assert found("auto", tmp_path) == (str(everywhere["llama"]), "serve")
    everywhere["llama"].unlink()
    assert found("auto", tmp_path) == (str(everywhere["newer"]),)
    everywhere["newer"].unlink()
    assert found("auto", tmp_path) == (str(everywhere["older"]),)
    everywhere["older"].unlink()
    assert found("auto", tmp_path) == EMBEDDED.command


@pytest.mark.usefixtures("no_embedded")
def test_without_any_engine_the_message_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(EngineUnusable, match=r"there is no engine.*pip install"):
        found("auto", tmp_path)


@pytest.mark.usefixtures("no_embedded")
def test_an_embedded_engine_that_is_not_installed_is_explained(tmp_path: Path) -> None:
    with pytest.raises(EngineUnusable, match="embedded engine is not installed; pip install"):
        found("embedded", tmp_path)


def test_the_embedded_engine_may_be_asked_for(everywhere: dict[str, Path], tmp_path: Path) -> None:
    assert found("embedded", tmp_path) == EMBEDDED.command


def test_a_command_may_be_a_path_a_name_or_a_command_line(
    everywhere: dict[str, Path], tmp_path: Path
) -> None:
    path = str(everywhere["older"])
    assert found(path, tmp_path) == (path,)
    assert found("llama-server", tmp_path) == (str(everywhere["llama-server"]),)
    assert found("llama serve --offline", tmp_path)[1:] == ("serve", "--offline")


def test_a_path_may_hold_blanks_and_begin_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = executable(tmp_path / "my engines" / "llama-server")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert found(str(engine), tmp_path) == (str(engine),)
    assert found("~/my engines/llama-server", tmp_path) == (str(engine),)


@pytest.mark.parametrize("command", ["~nobody.knows/llama-server", f"/{'x' * 300}/llama-server"])
def test_a_path_that_cannot_be_is_refused_like_one_that_is_not(
    command: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineUnusable, match="does not exist"):
        found(command, tmp_path)


def test_libraries_lie_beside_the_program_that_a_link_leads_to(tmp_path: Path) -> None:
    engine = executable(tmp_path / "opt" / "llama-server")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "llama-server").symlink_to(engine)
    program = locate("llama-server", {"PATH": str(tmp_path / "bin")}, tmp_path)
    assert program.folder == tmp_path.resolve() / "opt"
    made = environment(program, {"LD_LIBRARY_PATH": "/usr/x"}, {}, "linux")
    assert made["LD_LIBRARY_PATH"] == f"{tmp_path.resolve()}/opt:/usr/x"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("/nowhere/llama-server", "engine.command: /nowhere/llama-server does not exist"),
        ("no-such-llama", "engine.command: no-such-llama does not exist"),
        (str(Path(__file__)), f"engine.command: {__file__} cannot be executed"),
        (str(Path(__file__).parent), f"engine.command: {Path(__file__).parent} cannot be executed"),
        ('llama "serve', 'engine.command: llama "serve: No closing quotation'),
        ("", 'engine.command is empty; write "auto" or a path'),
    ],
)
def test_a_command_that_is_no_program_is_explained(
    command: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineUnusable) as error:
        found(command, tmp_path)
    assert str(error.value).removesuffix('; name a llama-server, or write "auto"') == message


# --- what it says ---


async def asked(path: Path) -> Engine:
    return await ask(Program((str(path),), path.parent), dict(os.environ))


async def words_of_failure(path: Path) -> str:
    with pytest.raises(EngineUnusable) as error:
        await asked(path)
    prefix = f"{path} cannot be run: "
    assert str(error.value).startswith(prefix)
    return str(error.value).removeprefix(prefix)


async def test_a_missing_shared_library_is_named(tmp_path: Path) -> None:
    said = "llama-server: error while loading shared libraries: libllama.so: cannot open"
    engine = executable(tmp_path / "x", f"#!/bin/sh\necho '{said}' >&2\nexit 127\n")
    assert "libllama.so" in await words_of_failure(engine)


async def test_a_program_for_another_machine_is_refused_in_the_systems_words(
    tmp_path: Path,
) -> None:
    engine = executable(tmp_path / "x", "\x7fELF for another machine")
    assert await words_of_failure(engine) == "Exec format error"


async def test_a_program_that_may_not_be_executed_is_refused_in_the_systems_words(
    tmp_path: Path,
) -> None:
    engine = executable(tmp_path / "x")
    engine.chmod(0o644)
    assert await words_of_failure(engine) == "Permission denied"


async def test_a_program_that_went_away_is_refused_in_the_systems_words(tmp_path: Path) -> None:
    assert await words_of_failure(tmp_path / "x") == "No such file or directory"


async def test_the_cause_is_told_though_it_is_not_the_last_line(tmp_path: Path) -> None:
    lines = ("dyld[1]: Library not loaded: @rpath/libllama.dylib", "  Reason: tried: nowhere")
    script = "".join(f"echo '{line}' >&2\n" for line in lines)
    engine = executable(tmp_path / "x", f"#!/bin/sh\n{script}kill -{int(signal.SIGABRT)} $$\n")
    assert "Library not loaded: @rpath/libllama.dylib" in await words_of_failure(engine)


async def test_a_program_for_another_cpu_is_told_from_its_signal(tmp_path: Path) -> None:
    engine = executable(tmp_path / "x", f"#!/bin/sh\nkill -{int(signal.SIGILL)} $$\n")
    assert "built for another CPU" in await words_of_failure(engine)


async def test_a_program_that_is_no_llama_server_is_refused(tmp_path: Path) -> None:
    engine = executable(tmp_path / "x", "#!/bin/sh\necho usage: x\n")
    with pytest.raises(EngineUnusable, match="is no llama-server"):
        await asked(engine)


async def test_a_program_that_never_answers_is_not_waited_for_but_no_verdict_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamasup.engine.locate._PATIENCE", 0.2)
    engine = executable(tmp_path / "x", "#!/bin/sh\nexec sleep 60\n")
    with (
        trio.fail_after(5),
        pytest.raises(ModelUnavailable, match="--help gave no answer within") as failure,
    ):
        await asked(engine)
    assert not isinstance(failure.value, EngineUnusable)


async def test_a_shortage_of_ours_is_no_verdict_on_the_program(tmp_path: Path) -> None:
    engine = executable(tmp_path / "x", "#!/bin/sh\nexit 0\n")
    with out_of_descriptors(), pytest.raises(ModelUnavailable, match="open files") as failure:
        await asked(engine)
    assert not isinstance(failure.value, EngineUnusable)


async def test_a_program_that_hangs_since_it_was_asked_before_is_no_verdict_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(*_: object) -> None:
        raise StillRunning("x --help was given up, and has not ended yet")

    monkeypatch.setattr("llamasup.processes.asking.run", hangs)
    with pytest.raises(ModelUnavailable, match="has not ended yet") as failure:
        await asked(tmp_path / "x")
    assert not isinstance(failure.value, EngineUnusable)


@pytest.mark.usefixtures("no_embedded")
def test_a_cache_that_cannot_be_looked_through_for_want_of_descriptors_is_no_verdict_either(
    tmp_path: Path,
) -> None:
    (tmp_path / "cache" / "engines").mkdir(parents=True)
    with out_of_descriptors(), pytest.raises(ModelUnavailable) as failure:
        found("auto", tmp_path)
    assert not isinstance(failure.value, EngineUnusable)


async def test_an_engine_that_runs_tells_its_version_and_its_flags(engine: str) -> None:
    program = locate(engine, os.environ, Path("/nowhere"))
    answer = await ask(program, environment(program, os.environ, {}, sys.platform))
    assert answer.version.startswith("version: ")
    assert answer.unix_sockets
    assert {"--model", "--host", "--port", "--parallel", "--ctx-size"} <= answer.flags


# --- how it is understood ---

PROGRAM = Program(("x",), None)


@pytest.mark.parametrize(
    ("help_text", "flags"),
    [
        ("-m, --model FNAME\n--host HOST", {"-m", "--model", "--host"}),
        (
            "--host H\n--model F\n--slots, --no-slots  x",
            {"--model", "--host", "--slots", "--no-slots"},
        ),
        ("--host H\n--model F\n  non-words like a-b and 1--2 are none", {"--model", "--host"}),
    ],
)
def test_flags_are_read_from_the_help(help_text: str, flags: set[str]) -> None:
    assert described(PROGRAM, help_text, "").flags == flags


def test_unix_sockets_are_seen_though_the_help_breaks_the_line() -> None:
    assert described(PROGRAM, HELP, "").unix_sockets
    assert not described(PROGRAM, HELP.replace("UNIX", ""), "").unix_sockets


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "version: 0.7.0 (build 11669, commit x)\nbuilt with GNU",
            "version: 0.7.0 (build 11669, commit x)",
        ),
        ("ggml_cuda_init: found 1 CUDA devices:\nversion: 5000 (abc)", "version: 5000 (abc)"),
        ("", "unknown version"),
    ],
)
def test_the_version_is_the_line_that_says_so(text: str, version: str) -> None:
    assert described(PROGRAM, HELP, text).version == version


async def test_a_program_that_fails_just_when_its_answer_is_not_wanted_any_more_is_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def killed_with_us(program: Program, flag: str, environment: object) -> str:
        try:
            await trio.sleep_forever()
        finally:
            if flag == "--help":
                raise EngineUnusable("killed by SIGINT")

    monkeypatch.setattr("llamasup.engine.locate._output", killed_with_us)
    with trio.CancelScope() as scope:
        scope.cancel()
        await ask(Program(("engine",), None), {})
    assert scope.cancelled_caught
