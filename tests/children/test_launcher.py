"""The launcher plans children that do not collide, on the engine as it is at the moment."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest
import trio

from llamasup.children.child import Child
from llamasup.children.launcher import Launcher
from llamasup.config.addresses import TcpAddress, UnixAddress
from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.errors import ModelUnavailable
from llamasup.memory.cards import Card
from llamasup.memory.ladder import Rung
from llamasup.memory.readings import HOST, Device, Kind
from llamasup.models.glances import one_glance
from llamasup.processes.run_folder import RunFolder
from llamasup.states import ChildState
from tests.harness import FAKE, Journal, out_of_descriptors, running, script
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
    await launcher.engines.common.now()
    with out_of_descriptors(), pytest.raises(ModelUnavailable, match="no port can be looked for"):
        await child_of(launcher, "fake")


async def test_real_engines_serve_on_ports_too(
    counting: dict[str, object], launching: Launching, first_port: int
) -> None:
    launcher = launching({**counting, "engine.port_range_start": first_port})
    child = await child_of(launcher, "count")
    assert isinstance(child.address, TcpAddress)
    assert await lives(child)


async def test_a_child_gets_the_environment_of_child_mode_and_the_operators_own(
    faking: Fake, launching: Launching, journal: Journal
) -> None:
    launcher = launching({**faking(), "engine.env.FAKE_WISH": "granted"})
    assert await lives(await child_of(launcher, "fake"))
    environment = journal.entries("started")[0]["environment"]
    assert environment["LLAMA_SERVER_ROUTER_PORT"]
    assert environment["GGML_NO_BACKTRACE"] == "1"
    assert environment["FAKE_WISH"] == "granted"


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


async def test_within_a_glance_each_file_is_looked_at_once_and_never_on_the_loop(
    faking: Fake, launching: Launching, monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = launching(faking())
    settings = launcher.in_effect.config.models["fake"]
    looks, stat = list[int](), os.stat

    def looking(path: object, *more: object, **options: object) -> os.stat_result:
        if path == settings.path:
            looks.append(threading.get_ident())
        return stat(path, *more, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "stat", looking)
    with one_glance():
        keys = {await launcher.key(settings) for _ in range(100)}
    assert (len(keys), len(looks)) == (1, 1)
    await launcher.key(settings)
    assert len(looks) == 2
    assert threading.get_ident() not in looks


async def test_a_model_may_have_an_engine_and_variables_of_its_own(
    faking: Fake, launching: Launching, tmp_path: Path
) -> None:
    other = script(tmp_path / "other-llama-server", f'exec {FAKE} "$@"')
    launcher = launching(
        {
            **faking(name="common"),
            **faking(name="own", engine=other, env={"MINE": "1", "BOTH": "2"}),
            "engine.env": {"BOTH": "1"},
        }
    )
    common, own = [(await child_of(launcher, name)).launch for name in ("common", "own")]
    assert own.argv[0] == other
    assert common.argv[0] != other
    assert (own.environment["MINE"], own.environment["BOTH"]) == ("1", "2")
    assert "MINE" not in common.environment
    assert common.environment["BOTH"] == "1"
    keys = {
        await launcher.key(launcher.in_effect.config.models[name]) for name in ("common", "own")
    }
    assert len(keys) == 2


async def test_a_model_s_engine_that_is_not_there_is_named(
    faking: Fake, launching: Launching
) -> None:
    launcher = launching(faking(engine="/nowhere/llama-server"))
    with pytest.raises(ModelUnavailable, match=r"models\.NAME\.engine: /nowhere"):
        await child_of(launcher, "fake")


async def test_children_that_may_have_company_share_the_cores_unless_the_operator_says_how(
    faking: Fake, launching: Launching
) -> None:
    for said, policy in (
        ({}, "passive"),
        ({"engine.env": {"OMP_WAIT_POLICY": "active"}}, "active"),
    ):
        launcher = launching({**faking(name="a"), **faking(name="b"), **said})
        assert (await child_of(launcher, "a")).launch.environment["OMP_WAIT_POLICY"] == policy
    alone = await child_of(launching(faking()), "fake")
    assert "OMP_WAIT_POLICY" not in alone.launch.environment
