"""What a model needs is said by the best source that there is, and no engine is asked in vain."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import define, evolve, field

from llamasup.children.dry_run import Unheard
from llamasup.children.launcher import Launcher
from llamasup.children.needs import Needed, Needs, Source
from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.config.schema import ModelSettings
from llamasup.engine.locate import EMBEDDED
from llamasup.learned import State
from llamasup.memory.cards import Card
from llamasup.memory.estimate import estimate
from llamasup.memory.gauge import Gauge
from llamasup.memory.host import most_resident
from llamasup.memory.ladder import Rung
from llamasup.memory.machine import Machine, ThisMachine
from llamasup.memory.readings import HOST, MEMINFO
from llamasup.memory.room import Amounts
from llamasup.models.gguf import header_of
from llamasup.processes.run_folder import RunFolder
from tests.harness import chat, running
from tests.models.shapes import (
    Shape,
    attention,
    common,
    feed_forward,
    llama,
    model,
    projector,
    qwen3,
)

MIB, GIB = 1 << 20, 1 << 30
RUNG = Rung(8192)
ENOUGH = {HOST: 1 << 50}
LITTLE = {HOST: MIB}


@define
class WithGpus:
    """A machine whose engines list GPUs."""

    lists: str = "Available devices:\n  (none)\n"
    host: int = 64 * GIB
    commands: list[Sequence[str]] = field(factory=list)

    async def run(self, *command: str, environment: Mapping[str, str] | None = None) -> str:
        self.commands.append(command)
        return self.lists if command[-1] == "--list-devices" else ""

    async def read(self, *patterns: str) -> Mapping[str, str]:
        return {MEMINFO: f"MemTotal: {self.host >> 10} kB\nMemAvailable: 1048576 kB\n"}

    async def nvml(self) -> list[Card]:
        return []


class House:
    """Needs of one model, on an engine that says what it is told and counts how often."""

    def __init__(self, folder: Path, run_folder: RunFolder, shape: Shape | None = None) -> None:
        self.folder = folder
        self.run_folder = run_folder
        self.model = folder / "m.gguf"
        if shape is not None:
            shape.write(folder).rename(self.model)
        self.asked = folder / "asked"
        self.cache_ram = 0
        self.says(300)

    def says(
        self,
        mebibytes: int | None,
        *,
        gpus: Sequence[int] = (),
        flags: str = "--log-jsonl --list-devices",
    ) -> None:
        """What the engine answers; None is nothing."""
        rows = [
            *({"kind": "device", "name": f"CUDA{i}", "self": own} for i, own in enumerate(gpus)),
            {"kind": "host", "name": "Host", "self": mebibytes},
        ]
        answer = json.dumps({"type": "fit_memory_breakdown", "data": {"rows": rows}})
        program = self.folder / "llama-server"
        program.write_text(
            "#!/bin/sh\n"
            f'[ "$1" = --help ] && exec echo "--model --host unix socket --ctx-size {flags}"\n'
            '[ "$1" = --version ] && exec echo "version: 1"\n'
            f'echo "$@" >> {self.asked}\n'
            + (f"echo '{answer}'\nexec sleep 600\n" if mebibytes is not None else "exit 1\n")
        )
        program.chmod(0o755)

    def needs(self, machine: Machine | None = None, **settings: object) -> Needs:
        """Those of a llamasup that starts now."""
        env = settings.pop("env", {})
        keys = {f"models.m.{key}": value for key, value in settings.items()}
        flags = {"engine.command": str(self.folder / "llama-server"), "engine.env": env, **keys}
        plain = {"models.m.path": str(self.model), "engine.cache_ram": self.cache_ram}
        config = load(None, {}, {**plain, **flags})
        self.settings: ModelSettings = config.models["m"]
        launcher = Launcher(InEffect(config), os.environ, self.folder, self.run_folder)
        return Needs(launcher, State(self.folder / "state.json"), Gauge(machine or WithGpus()))

    @property
    def questions(self) -> list[list[str]]:
        """The command lines of engines that were asked."""
        return [
            line.split()
            for line in (self.asked.read_text() if self.asked.exists() else "").splitlines()
        ]


Housing = Callable[..., House]


@pytest.fixture
def housing(tmp_path: Path, run_folder: RunFolder) -> Housing:
    return lambda shape=None: House(tmp_path, run_folder, shape)


def reckoned(house: House, rung: Rung = RUNG, **how: Any) -> Amounts:
    """What the formula says."""
    return {HOST: estimate(header_of(house.model), rung, **how).total}


def said(needed: Needed) -> tuple[Amounts, Source]:
    """How much, and by whom."""
    return needed.amounts, needed.source


# --- the formula, and when it does not suffice ---


async def test_a_small_need_is_computed_and_the_engine_is_not_asked(housing: Housing) -> None:
    house = housing(qwen3())
    needs = house.needs()
    for free in (None, ENOUGH):
        needed = await needs.of(house.settings, RUNG, free)
        assert said(needed) == (reckoned(house), Source.HEADER)
    assert house.questions == []


async def test_the_engine_is_asked_where_memory_is_scarce_and_once(housing: Housing) -> None:
    house = housing(qwen3())
    needs = house.needs()
    for free in (LITTLE, LITTLE, ENOUGH, None):
        needed = await needs.of(house.settings, RUNG, free)
        assert said(needed) == ({HOST: 300 * MIB}, Source.ENGINE)
    [question] = house.questions
    assert question[question.index("--ctx-size") + 1] == "8192"
    assert question[-1] == "--log-jsonl"


async def test_the_engines_word_is_there_after_a_restart_for_this_rung_alone(
    housing: Housing,
) -> None:
    house = housing(qwen3())
    await house.needs().of(house.settings, RUNG, LITTLE)
    again = house.needs()
    assert (await again.of(house.settings, RUNG)).source is Source.ENGINE
    assert (await again.of(house.settings, Rung(4096))).source is Source.HEADER
    smaller = evolve(house.settings, batch_size=64)
    assert (await again.of(smaller, RUNG)).source is Source.HEADER


async def test_many_who_ask_at_once_share_one_question(housing: Housing) -> None:
    house = housing(qwen3())
    needs = house.needs()
    heard = []

    async def ask() -> None:
        heard.append(await needs.ask_engine(house.settings, RUNG))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert heard == [Needed({HOST: 300 * MIB}, Source.ENGINE)] * 5
    assert len(house.questions) == 1


async def test_an_engine_without_an_answer_is_not_asked_again(housing: Housing) -> None:
    house = housing(qwen3())
    house.says(None)
    needs = house.needs()
    assert await needs.ask_engine(house.settings, RUNG) is None
    assert (await needs.of(house.settings, RUNG, LITTLE)).source is Source.HEADER
    assert len(house.questions) == 1


async def test_an_engine_that_was_not_heard_is_asked_again_later(
    housing: Housing, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = housing(qwen3())
    needs = house.needs()
    heard = Launcher.breakdown

    async def unheard(*_: object) -> None:
        raise Unheard("it was silent")

    monkeypatch.setattr(Launcher, "breakdown", unheard)
    assert (await needs.of(house.settings, RUNG, LITTLE)).source is Source.HEADER
    monkeypatch.setattr(Launcher, "breakdown", heard)
    assert (await needs.of(house.settings, RUNG, LITTLE)).source is Source.HEADER
    assert house.questions == []
    now = trio.current_time()
    monkeypatch.setattr(trio, "current_time", lambda: now + 61)
    assert (await needs.of(house.settings, RUNG, LITTLE)).source is Source.ENGINE


async def test_an_engine_that_does_not_know_the_question_is_not_asked(housing: Housing) -> None:
    house = housing(qwen3())
    house.says(300, flags="")
    assert await house.needs().ask_engine(house.settings, RUNG) is None
    assert house.questions == []


async def test_an_engine_that_would_load_the_model_first_is_not_asked(housing: Housing) -> None:
    house = housing(qwen3())
    needs = house.needs(extra_args=["-fit", "off"])
    assert await needs.ask_engine(house.settings, RUNG) is None
    assert house.questions == []


async def test_of_arguments_that_the_formula_does_not_know_the_engine_knows_more(
    housing: Housing,
) -> None:
    house = housing(qwen3())
    needs = house.needs(extra_args=["--n-cpu-moe", "20"])
    assert (await needs.of(house.settings, RUNG, ENOUGH)).source is Source.ENGINE


@pytest.mark.parametrize(
    ("settings", "how"),
    [
        ({"parallel": 4}, {"parallel": 4}),
        ({"batch_size": 64}, {"n_batch": 64}),
        ({"parallel": 4, "extra_args": ["-kvu"]}, {"parallel": 4, "kv_unified": True}),
        ({"extra_args": ["-c", "2048"]}, {"rung": Rung(2048)}),
        ({"extra_args": ["-ub", "64"]}, {"n_ubatch": 64}),
    ],
    ids=str,
)
async def test_slots_batches_and_a_few_arguments_are_reckoned_with(
    housing: Housing, settings: dict[str, object], how: dict[str, Any]
) -> None:
    house = housing(qwen3())
    needs = house.needs(**settings)
    assert (await needs.of(house.settings, RUNG)).amounts == reckoned(house, **how)


async def test_the_eyes_of_a_model_are_reckoned_with(housing: Housing) -> None:
    house = housing(qwen3())
    eyes = projector(1024, 2048, 1024).write(house.folder)
    needs = house.needs(extra_args=["--mmproj", str(eyes)])
    both = reckoned(house, mmproj=header_of(eyes))
    assert (await needs.of(house.settings, RUNG)).amounts == both != reckoned(house)


async def test_a_context_that_is_left_to_the_engine_is_what_the_model_was_trained_on(
    housing: Housing,
) -> None:
    house = housing(qwen3())
    needs = house.needs(parallel=2)
    trained = await needs.trained_context(house.settings)
    assert trained == header_of(house.model).own("context_length")
    open_rung = await needs.of(house.settings, Rung())
    assert open_rung.amounts == reckoned(house, Rung(2 * trained), parallel=2)
    await needs.ask_engine(house.settings, Rung())
    assert str(2 * trained) in house.questions[0]


# --- files of all kinds ---


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04"])
async def test_a_file_that_cannot_be_loaded_is_a_defect_and_no_need(
    housing: Housing, content: bytes | None
) -> None:
    house = housing()
    if content is not None:
        house.model.write_bytes(content)
    needed = await house.needs().of(house.settings, RUNG, LITTLE)
    assert needed.amounts == {}
    assert str(house.model) in needed.defect
    assert house.questions == []


async def test_of_a_file_that_only_engines_understand_its_size_is_known(housing: Housing) -> None:
    house = housing()
    house.model.write_bytes(b"GGUF" + (4).to_bytes(4, "little") + bytes(100))
    needs = house.needs()
    assert said(await needs.of(house.settings, RUNG)) == ({HOST: 108}, Source.FILE_SIZE)
    assert await needs.trained_context(house.settings) is None
    # And the engine understands it, however small it is.
    assert (await needs.of(house.settings, RUNG, ENOUGH)).source is Source.ENGINE


# --- GPUs ---

LISTED = """Available devices:
  CUDA0: NVIDIA GeForce RTX 3090 (24124 MiB, 24000 MiB free)
  CUDA1: NVIDIA GeForce RTX 3090 (24124 MiB, 12000 MiB free)
"""
ONE_LISTED = LISTED.partition("  CUDA1")[0]
BOTH = "CUDA0+CUDA1"


@pytest.mark.parametrize("lists", [LISTED, LISTED.replace("000 MiB free", " MiB free")])
async def test_what_is_for_gpus_is_of_all_of_them_together_whatever_is_free_now(
    housing: Housing, lists: str
) -> None:
    house = housing(llama())
    machine = WithGpus(lists)
    needs = house.needs(machine)
    need = estimate(header_of(house.model), RUNG, gpus=2)
    amounts = (await needs.of(house.settings, RUNG)).amounts
    assert amounts == {HOST: need.host.total, BOTH: need.gpu.total}
    listings = [command for command in machine.commands if command[-1] == "--list-devices"]
    assert listings == [(str(house.folder / "llama-server"), "--list-devices")]


async def test_devices_of_other_backends_are_budgets_likewise(housing: Housing) -> None:
    house = housing(llama())
    machine = WithGpus(ONE_LISTED.replace("CUDA", "Vulkan"))
    amounts = (await house.needs(machine).of(house.settings, RUNG)).amounts
    need = estimate(header_of(house.model), RUNG, gpus=1)
    assert amounts == {HOST: need.host.total, "Vulkan0": need.gpu.total}


@pytest.mark.parametrize(
    ("args", "place"),
    [
        (["--device", "CUDA1"], "CUDA1"),
        (["-dev", "CUDA1,CUDA0"], BOTH),
        (["--device", "none"], HOST),
    ],
    ids=str,
)
async def test_only_devices_that_the_operator_allows_are_used(
    housing: Housing, args: list[str], place: str
) -> None:
    house = housing(llama())
    needs = house.needs(WithGpus(LISTED), extra_args=args)
    amounts = (await needs.of(house.settings, RUNG)).amounts
    assert amounts.keys() == {HOST, place}


async def test_all_is_the_hosts_where_the_engine_has_no_gpu(housing: Housing) -> None:
    house = housing(llama())
    assert (await house.needs().of(house.settings, RUNG)).amounts == reckoned(house)


async def test_what_a_gpu_takes_of_the_hosts_memory_is_the_hosts(housing: Housing) -> None:
    house = housing(llama())
    machine = WithGpus(ONE_LISTED, host=24124 * MIB)
    amounts = (await house.needs(machine).of(house.settings, RUNG)).amounts
    assert amounts == {HOST: estimate(header_of(house.model), RUNG, gpus=1).total}


@pytest.mark.parametrize("lists", ["", "Failed to connect to 10.0.0.2:50052\n"])
async def test_without_the_engines_list_of_devices_the_need_is_unknown(
    housing: Housing, lists: str
) -> None:
    house = housing(llama())
    assert (await house.needs(WithGpus(lists)).of(house.settings, RUNG)).amounts == {}


async def test_rpc_servers_and_environment_go_into_the_question(housing: Housing) -> None:
    house = housing(llama())
    machine = WithGpus("Available devices:\n  RPC0: h:1 (24124 MiB, 24000 MiB free)\n")
    needs = house.needs(machine, extra_args=["--rpc", "h:1"])
    amounts = (await needs.of(house.settings, RUNG)).amounts
    assert amounts.keys() == {HOST, "h:1"}
    assert machine.commands[0][1:] == ("--rpc", "h:1", "--list-devices")


async def test_what_is_remembered_depends_on_the_environment(housing: Housing) -> None:
    house = housing(qwen3())
    await house.needs().ask_engine(house.settings, RUNG)
    assert (await house.needs().of(house.settings, RUNG)).source is Source.ENGINE
    renumbered = house.needs(env={"CUDA_VISIBLE_DEVICES": "1", "SECRET": "sesame"})
    assert (await renumbered.of(house.settings, RUNG)).source is Source.HEADER
    await renumbered.ask_engine(house.settings, RUNG)
    assert "sesame" not in (house.folder / "state.json").read_text()


@pytest.mark.parametrize(
    ("host", "gpus", "args", "amounts"),
    [
        (300, (1000, 500), [], {HOST: 300, BOTH: 1500}),
        (300, (1000, 0), [], {HOST: 300, BOTH: 1000}),
        # It was told how to split: it would do so again.
        (300, (1000, 500), ["-ts", "2,1"], {HOST: 300, "CUDA0": 1000, "CUDA1": 500}),
    ],
)
async def test_of_the_engines_word_the_sums_are_remembered(
    housing: Housing,
    host: int,
    gpus: tuple[int, int],
    args: list[str],
    amounts: dict[str, int],
) -> None:
    house = housing(llama())
    house.says(host, gpus=gpus)
    needs = house.needs(WithGpus(LISTED), extra_args=args, gpu_layers=-1)
    needed = await needs.ask_engine(house.settings, evolve(RUNG, gpu_layers=-1))
    assert needed is not None
    assert needed.amounts == {device: size * MIB for device, size in amounts.items()}


async def test_what_found_no_room_on_gpus_when_the_engine_was_asked_is_not_the_hosts_for_ever(
    housing: Housing,
) -> None:
    """Somebody who may go was there: the engine left layers on the host."""
    house = housing(llama())
    need = estimate(header_of(house.model), RUNG, gpus=2)
    spilt = need.gpu.total // 2
    house.says((need.host.total + spilt) // MIB, gpus=((need.gpu.total - spilt) // MIB, 0))
    needs = house.needs(WithGpus(LISTED))
    needed = await needs.ask_engine(house.settings, RUNG)
    assert needed is not None
    assert needed.amounts[BOTH] == pytest.approx(need.gpu.total, rel=0.01)
    assert needed.amounts[HOST] == pytest.approx(need.host.total, abs=2 * MIB)


async def test_what_never_finds_room_on_gpus_stays_on_the_host(housing: Housing) -> None:
    house = housing(llama())
    need = estimate(header_of(house.model), RUNG, gpus=1)
    gib = need.gpu.total // GIB
    assert gib > 4
    house.says(need.total // MIB - 1024, gpus=(1024,))
    small = "Available devices:\n  CUDA0: A (2048 MiB, 2048 MiB free)\n"
    needed = await house.needs(WithGpus(small)).ask_engine(house.settings, RUNG)
    assert needed is not None
    assert needed.amounts["CUDA0"] == pytest.approx(2048 * MIB * 0.9, rel=0.01)
    assert sum(needed.amounts.values()) == pytest.approx(need.total, abs=4 * MIB)


# --- read back ---


async def test_what_was_measured_wins_over_all_else_and_survives(housing: Housing) -> None:
    house = housing(qwen3())
    needs = house.needs()
    await needs.ask_engine(house.settings, RUNG)
    await needs.measured(house.settings, RUNG, 400 * MIB)
    for asked in (needs, house.needs()):
        needed = await asked.of(house.settings, RUNG, LITTLE)
        assert said(needed) == ({HOST: 400 * MIB}, Source.MEASURED)
        assert needed.least == {HOST: 300 * MIB}
    assert len(house.questions) == 1


async def test_prompts_that_were_cached_are_no_need(housing: Housing) -> None:
    house = housing(qwen3())
    house.cache_ram = 500 * MIB
    needs = house.needs()
    await needs.ask_engine(house.settings, RUNG)
    for held, needed in ((700, 300), (850, 350), (250, 250)):
        await needs.measured(house.settings, RUNG, held * MIB)
        assert (await needs.of(house.settings, RUNG)).amounts == {HOST: needed * MIB}


async def test_the_shell_around_an_engine_is_not_what_it_needs(housing: Housing) -> None:
    house = housing(qwen3())
    needs = house.needs()
    await needs.ask_engine(house.settings, RUNG)
    await needs.measured(house.settings, RUNG, 2 * MIB)
    assert (await needs.of(house.settings, RUNG)).amounts == {HOST: 150 * MIB}


async def test_what_was_measured_and_said_is_believed_for_a_week(
    housing: Housing, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = housing(qwen3())
    needs = house.needs()
    await needs.of(house.settings, RUNG, LITTLE)
    await needs.measured(house.settings, RUNG, 400 * MIB)
    week_later = time.time() + 7 * 86400
    monkeypatch.setattr("llamasup.children.needs.time.time", lambda: week_later)
    house.says(310)
    assert said(await needs.of(house.settings, RUNG)) == (reckoned(house), Source.HEADER)
    assert said(await needs.of(house.settings, RUNG, LITTLE)) == ({HOST: 310 * MIB}, Source.ENGINE)


async def test_the_engines_newer_word_overrules_what_was_measured(
    housing: Housing, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = housing(qwen3())
    needs = house.needs()
    await needs.measured(house.settings, RUNG, 4000 * MIB)
    assert (await needs.of(house.settings, RUNG)).source is Source.MEASURED
    assert said(await needs.of(house.settings, RUNG, LITTLE)) == ({HOST: 300 * MIB}, Source.ENGINE)
    now = time.time()
    monkeypatch.setattr("llamasup.children.needs.time.time", lambda: now + 60)
    await needs.measured(house.settings, RUNG, 400 * MIB)
    assert (await needs.of(house.settings, RUNG)).amounts == {HOST: 400 * MIB}


async def test_an_engine_that_had_no_answer_is_asked_again_after_an_hour(
    housing: Housing, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = housing(qwen3())
    house.says(None)
    needs = house.needs()
    assert await needs.ask_engine(house.settings, RUNG) is None
    house.says(300)
    assert await needs.ask_engine(house.settings, RUNG) is None
    now = trio.current_time()
    monkeypatch.setattr(trio, "current_time", lambda: now + 3601)
    assert await needs.ask_engine(house.settings, RUNG) is not None


async def test_a_model_that_may_be_larger_than_memory_needs_no_room_for_its_weights(
    housing: Housing,
) -> None:
    house = housing(qwen3())
    size = house.model.stat().st_size
    for overcommit, least in ((False, 0), (True, size)):
        needed = await house.needs(overcommit=overcommit).of(house.settings, RUNG)
        assert (needed.amounts, needed.mapped) == (reckoned(house), size - least)
        assert needed.least == {HOST: needed.amounts[HOST] - least}
    needed = await house.needs(overcommit=True, extra_args=["--no-mmap"]).of(house.settings, RUNG)
    assert (needed.mapped, needed.least) == (0, needed.amounts)


async def test_a_figure_that_is_nearly_the_same_is_not_written_again(housing: Housing) -> None:
    house = housing(qwen3())
    house.says(1000)
    needs = house.needs()
    await needs.ask_engine(house.settings, RUNG)
    for size, known in ((1000, 1000), (1005, 1000), (995, 1000), (1020, 1020), (900, 900)):
        await needs.measured(house.settings, RUNG, size * MIB)
        assert (await needs.of(house.settings, RUNG)).amounts == {HOST: known * MIB}


async def test_what_gpus_take_stays_as_it_was_known(housing: Housing) -> None:
    house = housing(llama())
    needs = house.needs(WithGpus(LISTED))
    before = (await needs.of(house.settings, RUNG)).amounts
    await needs.measured(house.settings, RUNG, GIB)
    assert (await needs.of(house.settings, RUNG)).amounts == {**before, HOST: GIB}


async def test_nothing_is_measured_where_gpus_hide_what_they_take(housing: Housing) -> None:
    house = housing(llama())
    needs = house.needs(WithGpus(ONE_LISTED, host=24124 * MIB))
    await needs.measured(house.settings, RUNG, GIB)
    assert (await needs.of(house.settings, RUNG)).source is Source.HEADER


# --- real engines ---


def wide() -> Shape:
    """A model whose cache is far larger than itself: 256 MiB for 16384 tokens."""
    layer = attention(512, 8, 8, 64) | feed_forward(512, 512)
    return Shape("wide", "llama", common(512, 8, 8, 8, 512), model(512, 8, lambda _: layer))


async def test_a_real_engine_confirms_the_formula_or_has_no_answer(
    engine: str, run_folder: RunFolder, tmp_path: Path
) -> None:
    path = qwen3().write(tmp_path)
    config = load(None, {}, {"engine.command": engine, "models.m.path": str(path)})
    launcher = Launcher(InEffect(config), os.environ, tmp_path, run_folder)
    needs = Needs(launcher, State(tmp_path / "state.json"), Gauge(ThisMachine()))
    for parallel in (1, 4):
        settings = evolve(config.models["m"], parallel=parallel)
        formula = (await needs.of(settings, RUNG)).amounts[HOST]
        answer = await needs.ask_engine(settings, RUNG)
        if "--log-jsonl" in (await launcher.engines.common.now()).flags:
            assert answer is not None
            assert answer.amounts[HOST] == pytest.approx(formula, rel=0.02)
        else:
            assert answer is None
    assert list(run_folder.path.glob("*.sock")) == []


async def held_by_a_real_child(config: Mapping[str, object], file: Path) -> int:
    """What the child of a llamasup holds that serves one request and ends."""
    async with running({**config, "folders.state": str(file.parent)}) as llamasup:
        assert (await llamasup.ask("POST", "/v1/chat/completions", chat(50))).status == 200
        [model] = (await llamasup.status())["models"]
        return most_resident(model["child"]["pid"])


async def test_what_a_real_child_held_is_known_to_the_next_llamasup(
    counting: dict[str, object], tmp_path: Path
) -> None:
    file = tmp_path / "state" / "state.json"
    held = await held_by_a_real_child({**counting, "models.count.context_size": 32768}, file)
    [footprint] = [e for e in _footprints(file).values() if e["source"] == "measured"]
    assert footprint["amounts"][HOST] == pytest.approx(held, rel=0.02)


async def test_what_is_measured_holds_the_whole_cache(engine: str, tmp_path: Path) -> None:
    config = {
        "engine.command": engine,
        "models.wide.path": str(wide().write(tmp_path)),
        "models.wide.context_size": 16384,
        "models.wide.threads": 1,
    }
    file = tmp_path / "state" / "state.json"
    await held_by_a_real_child(config, file)
    [measured] = [e for e in _footprints(file).values() if e["source"] == "measured"]
    needed = estimate(header_of(tmp_path / "wide.gguf"), Rung(16384)).total
    assert 256 * MIB < measured["amounts"][HOST] < needed + 256 * MIB


async def test_of_a_script_around_a_real_engine_the_engine_is_measured(
    counting: dict[str, object], tmp_path: Path
) -> None:
    command = str(counting["engine.command"])
    program = shlex.join(EMBEDDED.command) if command == "embedded" else command
    script = tmp_path / "wrapper"
    script.write_text(f'#!/bin/sh\n{program} "$@"\nexit $?\n')
    script.chmod(0o755)
    config = {**counting, "engine.command": str(script), "models.count.context_size": 32768}
    file = tmp_path / "state" / "state.json"
    held = await held_by_a_real_child(config, file)
    [footprint] = [e for e in _footprints(file).values() if e["source"] == "measured"]
    assert footprint["amounts"][HOST] == pytest.approx(held, rel=0.02)
    assert held > 24 * MIB  # a shell holds two


async def test_a_child_that_never_answered_says_nothing_about_its_need(
    counting: dict[str, object], tmp_path: Path
) -> None:
    file = tmp_path / "state" / "state.json"
    config = {**counting, "folders.state": str(file.parent), "pool.preload": ["count"]}
    async with running(config) as llamasup:
        assert (await llamasup.ask("POST", "/tokenize", {"content": "1"})).status == 200
    known = _footprints(file) if file.exists() else {}
    assert {entry["source"] for entry in known.values()} <= {"engine"}


def _footprints(file: Path) -> Any:
    """What a state file knows."""
    return json.loads(file.read_text())["footprints"]
