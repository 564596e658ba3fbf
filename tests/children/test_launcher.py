"""The launcher plans children that do not collide, on the engine as it is at the moment."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
import trio

from llamasup.children.child import Child
from llamasup.children.launcher import Launcher
from llamasup.config.addresses import TcpAddress, UnixAddress
from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.engine.locate import Program, locate
from llamasup.errors import EngineUnusable, ModelUnavailable
from llamasup.memory.cards import Card
from llamasup.memory.ladder import Rung
from llamasup.memory.machine import ThisMachine
from llamasup.memory.readings import HOST, Device, Kind
from llamasup.models.glances import one_glance
from llamasup.processes.run_folder import RunFolder
from llamasup.states import ChildState
from tests.harness import FAKE, Journal, out_of_descriptors, running
from tests.memory.recorded import recorded

Fake = Callable[..., Mapping[str, object]]
Launching = Callable[[Mapping[str, object]], Launcher]


@pytest.fixture
def launching(run_folder: RunFolder) -> Launching:
    def launching(config: Mapping[str, object]) -> Launcher:
        return Launcher(InEffect(load(None, {}, config)), os.environ, run_folder.path, run_folder)

    return launching


@pytest.fixture
def first_port() -> int:
    """A port that is free, and so, most likely, are those after it."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1]) % 10000 + 20000


def script(path: Path, *lines: str) -> str:
    """A shell script at `path`, and how to call it. Written beside, then moved there."""
    draft = path.with_suffix(".new")
    draft.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    draft.chmod(0o755)
    draft.replace(path)
    return str(path)


def child_of(launcher: Launcher, model: str) -> Awaitable[Child]:
    return launcher.child(model, launcher.in_effect.config.models[model], Rung())


async def lives(child: Child) -> bool:
    """Does it get ready? (It is stopped again.)"""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(child.run)
        await child.settled.wait()
        was_ready = child.state is ChildState.READY
        child.stop()
    return was_ready


async def test_children_listen_on_private_sockets_of_their_own(
    faking: Fake, launching: Launching, run_folder: RunFolder
) -> None:
    launcher = launching(faking())
    addresses = [(await child_of(launcher, "fake")).address for _ in range(3)]
    assert addresses == [UnixAddress(f"{run_folder.path}/{n}.sock") for n in (1, 2, 3)]


async def test_an_engine_without_unix_sockets_gets_a_port(
    faking: Fake, launching: Launching, tmp_path: Path
) -> None:
    engine = script(
        tmp_path / "old-llama-server",
        '[ "$1" = --help ] && exec echo "--model FNAME  --host HOST  --port PORT  --parallel N"',
        f'exec {FAKE} "$@"',
    )
    child = await child_of(launching({**faking(), "engine.command": engine}), "fake")
    assert isinstance(child.address, TcpAddress)
    assert child.address.host == "127.0.0.1"
    assert await lives(child)


async def test_a_range_of_ports_is_used_from_its_start(
    faking: Fake, launching: Launching, first_port: int
) -> None:
    launcher = launching({**faking(), "engine.port_range_start": first_port})
    child = await child_of(launcher, "fake")
    assert child.address == TcpAddress("127.0.0.1", first_port)
    assert await lives(child)
    assert (await child_of(launcher, "fake")).address == child.address


async def test_a_port_that_a_stranger_has_is_passed_over(
    faking: Fake, launching: Launching, first_port: int
) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", first_port))
        stranger.listen()
        launcher = launching({**faking(), "engine.port_range_start": first_port})
        child = await child_of(launcher, "fake")
        assert child.address == TcpAddress("127.0.0.1", first_port + 1)


async def test_children_that_start_at_the_same_time_get_different_ports(
    faking: Fake, launching: Launching, first_port: int
) -> None:
    launcher = launching({**faking(), "engine.port_range_start": first_port})
    children = [await child_of(launcher, "fake") for _ in range(3)]
    ports = [child.address.port for child in children if isinstance(child.address, TcpAddress)]
    assert ports == [first_port, first_port + 1, first_port + 2]


async def test_a_range_without_a_free_port_fails_the_load(
    faking: Fake, launching: Launching
) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 65535))
        stranger.listen()
        launcher = launching({**faking(), "engine.port_range_start": 65535})
        with pytest.raises(ModelUnavailable, match=r"engine\.port_range_start"):
            await child_of(launcher, "fake")


async def test_without_a_descriptor_to_look_for_a_port_the_load_fails_and_nothing_else(
    faking: Fake, launching: Launching, first_port: int
) -> None:
    launcher = launching({**faking(), "engine.port_range_start": first_port})
    await launcher.engine()
    with out_of_descriptors(), pytest.raises(ModelUnavailable, match="no port can be looked for"):
        await child_of(launcher, "fake")


async def test_real_engines_serve_on_ports_too(
    counting: dict[str, object], launching: Launching, first_port: int
) -> None:
    launcher = launching({**counting, "engine.port_range_start": first_port})
    child = await child_of(launcher, "count")
    assert isinstance(child.address, TcpAddress)
    assert await lives(child)


async def test_the_engine_is_asked_again_only_when_its_program_was_replaced(
    faking: Fake, launching: Launching, tmp_path: Path
) -> None:
    path, asked = tmp_path / "llama-server", tmp_path / "asked"
    count = f'echo "$1" >> {shlex.quote(str(asked))}'
    help_text = 'echo "--model FNAME --host HOST"'
    engine = script(path, count, help_text)
    launcher = launching({**faking(), "engine.command": engine})
    assert launcher.known_engine is None
    assert await launcher.engine() is await launcher.engine()
    assert sorted(asked.read_text().split()) == ["--help", "--version"]

    script(path, count, '[ "$1" = --version ] && echo "version: 2"', help_text)
    assert (await launcher.engine()).version == "version: 2"
    assert len(asked.read_text().split()) == 4

    script(path, "echo it broke", "exit 1")
    with pytest.raises(EngineUnusable, match="it broke"):
        await launcher.engine()


async def test_many_who_want_the_engine_at_once_ask_it_once(
    faking: Fake, launching: Launching, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    count = f'echo "$1" >> {shlex.quote(str(asked))}'
    engine = script(tmp_path / "llama-server", count, 'echo "--model FNAME --host HOST"')
    launcher = launching({**faking(), "engine.command": engine})
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(launcher.engine)
    assert len(asked.read_text().split()) == 2


async def test_a_child_gets_the_environment_of_child_mode_and_the_operators_own(
    faking: Fake, launching: Launching, journal: Journal
) -> None:
    launcher = launching({**faking(), "engine.env.FAKE_WISH": "granted"})
    assert await lives(await child_of(launcher, "fake"))
    environment = journal.entries("started")[0]["environment"]
    assert environment["LLAMA_SERVER_ROUTER_PORT"]
    assert environment["GGML_NO_BACKTRACE"] == "1"
    assert environment["FAKE_WISH"] == "granted"


async def test_the_engine_is_asked_for_its_devices_out_of_child_mode(
    launching: Launching, engine: str
) -> None:
    """In which llama-server tells them where nobody listens."""
    launcher = launching({"engine.command": engine, "models.m.path": "m.gguf"})
    if listing := await launcher.listing(launcher.in_effect.config.models["m"]):
        answer = await ThisMachine().run(*listing.command, environment=listing.environment)
        assert listing.devices_in(answer) is not None


@pytest.mark.parametrize(
    ("wished", "free", "granted"),
    [("auto", 4 << 30, 512), ("auto", 64 << 30, 2048), ("auto", 0, 0), ("5GiB", 1 << 30, 5120)],
    ids=["an eighth of what is free", "never much", "nothing", "what the operator wants"],
)
async def test_the_prompt_cache_of_a_child_is_bounded(
    wished: str,
    free: int,
    granted: int,
    faking: Fake,
    launching: Launching,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def host(machine: object) -> list[Device]:
        return [Device(HOST, Kind.HOST, 99 << 30, free)]

    monkeypatch.setattr("llamasup.children.launcher.host", host)
    child = await child_of(launching({**faking(), "engine.cache_ram": wished}), "fake")
    words = list(child.launch.argv)
    assert words[words.index("--cache-ram") + 1] == str(granted)


async def test_a_request_is_served_over_a_port(faking: Fake, first_port: int) -> None:
    async with running({**faking(), "engine.port_range_start": first_port}) as llamasup:
        reply = await llamasup.ask("POST", "/completion", {"n_predict": 2})
        assert reply.json()["content"] == " 0 1"
        child = (await llamasup.model_status("fake"))["child"]
        assert child["address"] == f"127.0.0.1:{first_port}"


class Mac:
    """A machine that tells its memory to those alone who run its tools."""

    async def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        tool = {"sysctl": "sysctl_m1", "vm_stat": "vm_stat_m1"}.get(command[0])
        return recorded(tool) if tool else ""

    async def read(self, *patterns: str) -> Mapping[str, str]:
        return {}

    async def nvml(self) -> list[Card]:
        return []


async def test_on_a_mac_prompts_are_cached_too(run_folder: RunFolder, faking: Fake) -> None:
    config = load(None, {}, faking())
    launcher = Launcher(InEffect(config), os.environ, run_folder.path, run_folder, Mac())
    words = (await child_of(launcher, "fake")).launch.argv
    assert int(words[words.index("--cache-ram") + 1]) > 500


async def test_within_a_glance_the_engine_is_located_once(
    faking: Fake, launching: Launching, monkeypatch: pytest.MonkeyPatch
) -> None:
    located = list[str]()

    def locating(command: str, *where: object) -> Program:
        located.append(command)
        return locate(command, *where)  # type: ignore[arg-type]

    launcher = launching(faking())
    await launcher.engine()
    monkeypatch.setattr("llamasup.children.launcher.locate", locating)
    settings = launcher.in_effect.config.models["fake"]
    with one_glance():
        keys = {await launcher.key(settings) for _ in range(100)}
    assert (len(keys), len(located)) == (1, 1)
    await launcher.key(settings)
    assert len(located) == 2
