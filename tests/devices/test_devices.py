"""Models on real devices: split, evicted, out of memory, renumbered, and bereft of their device."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from llamasup.children.launcher import Launcher
from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.memory.gauge import Gauge
from llamasup.memory.readings import HOST
from llamasup.processes.run_folder import own_run_folder
from tests.devices.conftest import RpcServers
from tests.harness import (
    Llamasup,
    Reply,
    chat,
    counted,
    counting_model,
    eventually,
    request,
    running,
)

MIB = 1 << 20


@asynccontextmanager
async def two_servers(start: RpcServers) -> AsyncIterator[tuple[str, str, AsyncExitStack]]:
    """Two RPC servers; the first one ends when its stack is closed."""
    async with AsyncExitStack() as first, start() as other:
        yield await first.enter_async_context(start()), other, first


def models(path: Path, **args: list[str]) -> dict[str, object]:
    """The configuration of models of one file, each with its own arguments."""
    config: dict[str, object] = {"pool.memory_reserve": 0}
    for name, extra in args.items():
        config |= {
            f"models.{name}.path": str(path),
            f"models.{name}.context_size": 16384,
            f"models.{name}.threads": 1,
            f"models.{name}.extra_args": extra,
        }
    return config


async def answers(llamasup: Llamasup, model: str) -> None:
    """An RPC server takes one connection at a time: one that has just ended may be in the way."""

    async def is_answered() -> bool:
        reply = await llamasup.ask("POST", "/v1/chat/completions", chat(2, model=model))
        assert reply.status == 200 or b"Failed to connect" in reply.body, reply.body
        return reply.status == 200

    await eventually(is_answered)


async def fits(llamasup: Llamasup) -> Any:
    return (await llamasup.ask("GET", "/modelFits")).json()


async def loaded(llamasup: Llamasup) -> set[str]:
    models = (await llamasup.status())["models"]
    return {model["name"] for model in models if model["child"]}


async def test_a_model_is_split_over_two_devices_and_both_are_budgets(
    small_devices: str, wide_model: Path, rpc_server: RpcServers
) -> None:
    async with rpc_server() as one, rpc_server() as other:
        config = models(wide_model, m=["--rpc", f"{one},{other}"])
        async with running({**config, "engine.command": small_devices}) as llamasup:
            before = await fits(llamasup)
            assert before["free"][one] == before["free"][other] == 600 * MIB
            [entry] = before["models"]
            assert set(entry["begins"]["needs"]) == {HOST, f"{one}+{other}"}
            assert entry["begins"]["needs"][f"{one}+{other}"] > 256 * MIB
            await answers(llamasup, "m")
            after = (await fits(llamasup))["free"]
            assert max(after[one], after[other]) < 550 * MIB
            assert after[one] + after[other] < (1200 - 256) * MIB


async def test_a_model_on_the_same_device_is_unloaded_and_one_on_another_device_stays(
    small_devices: str, wide_model: Path, rpc_server: RpcServers
) -> None:
    async with rpc_server() as one, rpc_server() as other:
        config = models(wide_model, a=["--rpc", one], b=["--rpc", one], c=["--rpc", other])
        async with running({**config, "engine.command": small_devices}) as llamasup:
            await answers(llamasup, "c")
            await answers(llamasup, "a")
            await answers(llamasup, "b")
            assert await loaded(llamasup) == {"b", "c"}


async def test_what_two_devices_have_together_is_found_though_an_idle_model_holds_one(
    small_devices: str, wide_model: Path, rpc_server: RpcServers
) -> None:
    async with rpc_server() as one, rpc_server() as other:
        config = models(wide_model, small=["--rpc", one], large=["--rpc", f"{one},{other}"])
        config["models.large.context_size"] = 40000
        async with running({**config, "engine.command": small_devices}) as llamasup:
            await answers(llamasup, "small")
            await answers(llamasup, "large")
            assert await loaded(llamasup) == {"large"}


async def test_a_device_without_memory_costs_rungs_and_no_client_an_answer(
    engine_with_devices: str, wide_model: Path, rpc_server: RpcServers
) -> None:
    async with rpc_server(memory=700_000_000) as server:
        config = models(wide_model, m=["--rpc", server])
        config |= {"models.m.context_size": 65536, "ladder.contexts": [65536, 32768, 4096]}
        async with running({**config, "engine.command": engine_with_devices}) as llamasup:
            await answers(llamasup, "m")
            status = await llamasup.model_status("m")
            assert status["loads"] > 1
            assert status["rung"] in ("context 32768", "context 4096")


async def test_two_that_are_called_rpc0_are_two_devices(
    small_devices: str, wide_model: Path, rpc_server: RpcServers
) -> None:
    async with rpc_server() as one, rpc_server() as other:
        config = models(wide_model, a=["--rpc", one], b=["--rpc", other])
        async with running({**config, "engine.command": small_devices}) as llamasup:
            await answers(llamasup, "a")
            await answers(llamasup, "b")
            assert await loaded(llamasup) == {"a", "b"}


async def test_the_order_of_servers_renumbers_devices_and_not_their_budgets(
    engine_with_devices: str, count_model: Path, tmp_path: Path, rpc_server: RpcServers
) -> None:
    async with rpc_server() as one, rpc_server() as other:
        names = {}
        for servers in (f"{one},{other}", f"{other},{one}"):
            listed, _ = await devices(
                engine_with_devices, count_model, tmp_path, args=["--rpc", servers]
            )
            names[servers] = listed
        assert names == {
            f"{one},{other}": [("RPC0", one), ("RPC1", other)],
            f"{other},{one}": [("RPC0", other), ("RPC1", one)],
        }


async def devices(
    engine: str,
    path: Path,
    folder: Path,
    *,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
) -> tuple[list[tuple[str, str]], str]:
    """The devices that a model would see, and their budgets; and under which key it is known."""
    whole = {"engine.command": engine, "engine.env": dict(env or {})}
    model = {"models.m.path": str(path), "models.m.extra_args": list(args)}
    config = load(None, {}, {**whole, **model})
    settings = config.models["m"]
    with own_run_folder(folder) as (run_folder, _):
        launcher = Launcher(InEffect(config), os.environ, folder, run_folder)
        listing = await launcher.listing(settings)
        assert listing is not None
        listed = await Gauge(launcher.machine).listed(listing)
        assert listed is not None
        return [(d.name, d.budget) for d in listed], await launcher.key(settings)


async def test_the_environment_of_the_engine_decides_which_devices_there_are(
    engine_with_devices: str, count_model: Path, tmp_path: Path
) -> None:
    none, key = await devices(engine_with_devices, count_model, tmp_path)
    # The processor's own memory is the host's, under whatever name.
    rasterizer, other_key = await devices(
        engine_with_devices, count_model, tmp_path, env={"GGML_VK_VISIBLE_DEVICES": "0"}
    )
    assert none == []
    assert rasterizer == [("Vulkan0", HOST)]
    assert key != other_key


async def test_a_server_that_dies_takes_its_model_along_and_brings_it_back(
    engine_with_devices: str, count_model: Path, rpc_server: RpcServers
) -> None:
    async with AsyncExitStack() as first:
        server = await first.enter_async_context(rpc_server())
        config = models(count_model, count=["--rpc", server], beside=[])
        config |= {"recovery.patience": "3s", "engine.command": engine_with_devices}
        async with running(config) as llamasup:
            assert (await count(llamasup)).text() == counted(4)
            await first.aclose()
            reply = await count(llamasup)
            assert reply.status == 503, reply.body
            await answers(llamasup, "beside")
            async with rpc_server(address=server):
                await eventually(lambda: is_counted(llamasup), within=90)


async def count(llamasup: Llamasup) -> Reply:
    return await llamasup.ask("POST", "/v1/chat/completions", chat(4, model="count"))


async def is_counted(llamasup: Llamasup) -> bool:
    reply = await count(llamasup)
    return reply.status == 200 and reply.text() == counted(4)


async def test_a_model_s_own_devices_are_its_budgets_and_wrong_ones_are_told(
    small_devices: str, wide_model: Path, rpc_server: RpcServers
) -> None:
    async with rpc_server() as one, rpc_server() as other:
        config = models(wide_model, a=[], b=[], c=[])
        config |= {
            "engine.args": ["--rpc", f"{one},{other}"],
            "models.a.devices": ["RPC1"],
            "models.b.devices": ["none"],
            "models.c.devices": ["CUDA7"],
        }
        async with running({**config, "engine.command": small_devices}) as llamasup:
            entries = {entry["name"]: entry for entry in (await fits(llamasup))["models"]}
            assert set(entries["a"]["begins"]["needs"]) == {HOST, other}
            assert set(entries["b"]["begins"]["needs"]) == {HOST}
            refused = await llamasup.ask("POST", "/v1/chat/completions", chat(2, model="c"))
            assert refused.status == 503
            assert "lists no device CUDA7; write RPC0 or RPC1 or" in refused.error["message"]
            await answers(llamasup, "b")
            assert await loaded(llamasup) == {"b"}


async def loaded_on(llamasup: Llamasup) -> str:
    """The RPC servers that the child was started with."""
    pid = (await llamasup.model_status("count"))["child"]["pid"]
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return words[words.index("--rpc") + 1] if "--rpc" in words else ""


@pytest.mark.parametrize("key", ["models.count.rpc", "engine.rpc"])
async def test_a_server_killed_under_a_stream_is_named_done_without_and_used_again(
    engine_with_devices: str, tmp_path: Path, rpc_server: RpcServers, key: str
) -> None:
    slow = counting_model(tmp_path / "count.gguf", hidden=2048)
    async with two_servers(rpc_server) as (one, other, first):
        config = {**models(slow, count=[]), key: [one, other]}
        config["engine.command"] = engine_with_devices
        async with running(config) as llamasup:
            async with llamasup.connect() as client:
                await client.send(
                    request("POST", "/v1/chat/completions", chat(2000, model="count"))
                )
                await client.head()
                await client.read_until(b'"content":')
                assert await loaded_on(llamasup) == f"{one},{other}"
                await first.aclose()
                rest = await client.read_until(b"\r\n0\r\n\r\n")
                assert b'"error"' in rest
                assert b"[DONE]" not in rest
            assert (await count(llamasup)).text() == counted(4)
            assert await loaded_on(llamasup) == other
            async with rpc_server(address=one):
                await trio.sleep(1.1)
                await llamasup.ask("POST", "/api/restart?model=count")

                async def is_on_both() -> bool:
                    await answers(llamasup, "count")
                    return await loaded_on(llamasup) == f"{one},{other}"

                await eventually(is_on_both)


async def test_servers_that_were_never_there_cost_a_second_and_no_answer(
    engine_with_devices: str, count_model: Path
) -> None:
    config = models(count_model, count=[])
    config |= {"engine.command": engine_with_devices}
    config["models.count.rpc"] = ["127.0.0.1:1", "no-such-host.invalid:50052"]
    async with running(config) as llamasup:
        assert (await count(llamasup)).text() == counted(4)
        assert await loaded_on(llamasup) == ""
