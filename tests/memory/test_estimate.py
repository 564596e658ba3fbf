"""What is reckoned from a header is what the real engine reckons for itself."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve, frozen

from llamasup.engine.locate import locate
from llamasup.memory.estimate import Need, estimate
from llamasup.memory.ladder import Rung
from llamasup.models.gguf import TENSOR_TYPES, BadModelFile, Header, header_of, joined
from tests.models.shapes import (
    BLOCKS,
    SHAPES,
    Shape,
    attention,
    common,
    feed_forward,
    gemma3,
    llama,
    mamba,
    model,
    projector,
    qwen3,
)

MIB = 1 << 20
CACHE = re.compile(r"(?:llama_kv_cache|llama_memory_recurrent): size = +([\d.]+) MiB")
PROJECTOR = re.compile(r"reserve_compute_meta: +\w+ compute buffer size = +([\d.]+) MiB")
FILE_SIZE = re.compile(r"print_info: file size += ([\d.]+) (MiB|GiB)")
BREAKDOWN = re.compile(r"- Host .*= +(?P<weights>\d+) \+ +(?P<context>\d+) \+ +(?P<compute>\d+)")

each_shape = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)


@frozen
class Measured:
    """An engine's own figures, in MiB."""

    caches: Sequence[float]
    weights: int
    compute: int

    @property
    def kv(self) -> float:
        return sum(self.caches)

    @property
    def total(self) -> float:
        return self.weights + self.kv + self.compute


@frozen
class Launch:
    """One way to launch a model: what the engine is told, and what is estimated from."""

    cache_type: str = "f16"
    parallel: int = 1
    context: int = 8192
    kv_unified: bool = False
    n_ubatch: int = 512
    flash_attn: bool = True

    def arguments(self) -> list[str]:
        return [
            *("-c", str(self.context), "-np", str(self.parallel), "-ub", str(self.n_ubatch)),
            *("-ctk", self.cache_type, "-ctv", self.cache_type),
            *("-fa", "on" if self.flash_attn else "off"),
            "--kv-unified" if self.kv_unified else "--no-kv-unified",
        ]

    def estimate(self, header: Header) -> Need:
        return estimate(
            header,
            Rung(context=self.context, cache_type=self.cache_type),
            parallel=self.parallel,
            kv_unified=self.kv_unified,
            n_ubatch=self.n_ubatch,
            flash_attn=self.flash_attn,
        )


class Engine:
    """A real one, asked for what it says before it loads anything."""

    def __init__(self, command: str) -> None:
        self._command = locate(command, os.environ, Path("nowhere")).command

    def measured(self, model: Path, launches: Iterable[Launch]) -> list[Measured]:
        """The engine's figures for each launch; they are started all at once."""
        started = [self._started(model, *launch.arguments()) for launch in launches]
        return [self._breakdown(child) for child in started]

    @contextmanager
    def log(self, model: Path, *arguments: str) -> Iterator[Iterator[str]]:
        """The engine's lines, for as long as they are wanted."""
        child = self._started(model, *arguments)
        try:
            assert child.stderr is not None
            yield iter(child.stderr)
        finally:
            child.kill()
            child.communicate()

    def _started(self, model: Path, *arguments: str) -> subprocess.Popen[str]:
        words = ["--model", str(model), "--host", "127.0.0.1", "--port", "0", "-fit", "on"]
        return subprocess.Popen(
            [*self._command, *words, "-lv", "5", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )

    def _breakdown(self, child: subprocess.Popen[str]) -> Measured:
        assert child.stderr is not None
        caches, said = [], []
        try:
            for line in child.stderr:
                said.append(line)
                if cache := CACHE.search(line):
                    caches.append(float(cache[1]))
                elif found := BREAKDOWN.search(line):
                    return Measured(caches, int(found["weights"]), int(found["compute"]))
        finally:
            child.kill()
            child.communicate()
        raise AssertionError("the engine refused the model:\n" + "".join(said[-8:]))


@pytest.fixture
def real(engine: str) -> Engine:
    return Engine(engine)


def agrees_on_kv(need: Need, measured: Measured) -> bool:
    """To the last digit that the engine prints of each of its caches."""
    return abs(need.host.kv / MIB - measured.kv) <= 0.00501 * len(measured.caches)


# The same figures as the engine's


@each_shape
def test_the_cache_is_the_engines_to_the_byte(real: Engine, shape: Shape, tmp_path: Path) -> None:
    path = shape.write(tmp_path)
    header = header_of(path)
    launches = [
        Launch(cache_type, parallel)
        for cache_type in ("f16", "q8_0", "q4_0")
        for parallel in (1, 4)
    ]
    for launch, measured in zip(launches, real.measured(path, launches), strict=True):
        need = launch.estimate(header)
        assert agrees_on_kv(need, measured), launch
        assert abs(need.host.weights / MIB - measured.weights) < 2, launch
        assert need.host.compute / MIB == pytest.approx(measured.compute, rel=0.1, abs=2), launch
        assert abs(need.total / MIB - measured.total) <= max(64, 0.05 * measured.total), launch
        assert need.gpu.total == 0


UNUSUAL = (
    Launch(context=40_000, parallel=4, kv_unified=True, n_ubatch=256),
    Launch(context=1000, parallel=3),
    Launch(context=200, n_ubatch=2048),
    Launch(context=131_072, cache_type="q5_1", n_ubatch=2048),
    Launch(flash_attn=False, parallel=2),
)


@each_shape
def test_so_it_is_in_unusual_launches(real: Engine, shape: Shape, tmp_path: Path) -> None:
    path = shape.write(tmp_path)
    header = header_of(path)
    for launch, measured in zip(UNUSUAL, real.measured(path, UNUSUAL), strict=True):
        need = launch.estimate(header)
        assert agrees_on_kv(need, measured), launch
        assert abs(need.total / MIB - measured.total) <= max(64, 0.05 * measured.total), launch


@pytest.mark.parametrize("cache_type", ["f32", "bf16", "q4_1", "q5_0", "q5_1", "iq4_nl"])
def test_every_type_that_a_cache_can_have_is_as_large_as_the_engines(
    real: Engine, cache_type: str, tmp_path: Path
) -> None:
    path = gemma3().write(tmp_path)
    launch = Launch(cache_type, parallel=2)
    [measured] = real.measured(path, [launch])
    assert agrees_on_kv(launch.estimate(header_of(path)), measured)


@pytest.mark.parametrize("code", TENSOR_TYPES, ids=lambda code: TENSOR_TYPES[code].name)
def test_tensors_of_every_type_are_as_large_as_the_engines(
    real: Engine, code: int, tmp_path: Path
) -> None:
    kind = TENSOR_TYPES[code]
    whole = evolve(llama(), matrices=code, blocks={**BLOCKS, code: (kind.elements, kind.size)})
    path = whole.write(tmp_path)
    with real.log(path) as log:
        size, unit = next(found.groups() for line in log if (found := FILE_SIZE.search(line)))
    weights = estimate(header_of(path), Rung(512)).host.weights
    assert f"{weights / {'MiB': MIB, 'GiB': MIB << 10}[unit]:.2f}" == size


def test_a_projector_needs_what_the_engine_reserves_for_it(real: Engine, tmp_path: Path) -> None:
    layer = {**attention(512, 8, 8, 64), **feed_forward(512, 1024)}
    small = Shape("small", "llama", common(512, 1, 8, 8, 1024), model(512, 1, lambda _: layer))
    path, eyes = small.write(tmp_path), projector(1024, 4096, into=512)
    mmproj = eyes.write(tmp_path)
    need = estimate(header_of(path), Rung(1024), mmproj=header_of(mmproj))
    with real.log(path, "--mmproj", str(mmproj), "-c", "1024") as log:
        reserved = next(float(found[1]) for line in log if (found := PROJECTOR.search(line)))
    assert abs((need.host.mmproj - eyes.weights) / MIB - reserved) < 2


# What goes to the GPUs


@pytest.fixture
def grouped(tmp_path: Path) -> Header:
    return header_of(llama().write(tmp_path))


def on_gpus(header: Header, gpu_layers: int | None, gpus: int = 1) -> Need:
    return estimate(header, Rung(8192, "f16", gpu_layers), gpus=gpus)


@pytest.mark.parametrize("gpu_layers", [None, -1, 33, 999])
def test_all_layers_on_the_gpu_leave_the_host_the_embeddings(
    grouped: Header, gpu_layers: int | None
) -> None:
    need = on_gpus(grouped, gpu_layers)
    embeddings = next(t.size for t in grouped.tensors if t.name == "token_embd.weight")
    assert need.host.weights == embeddings
    assert need.host.kv == 0
    assert need.gpu.kv == estimate(grouped, Rung(8192)).host.kv


def test_the_output_is_the_first_to_go_and_counts_as_a_layer(grouped: Header) -> None:
    output = sum(t.size for t in grouped.tensors if t.name.startswith("output"))
    layer = sum(t.size for t in grouped.tensors if t.name.startswith("blk.31."))
    assert on_gpus(grouped, 1).gpu.weights == output
    assert on_gpus(grouped, 2).gpu.weights == output + layer


@each_shape
def test_every_byte_of_cache_is_somewhere_however_layers_are_split(
    shape: Shape, tmp_path: Path
) -> None:
    header = header_of(shape.write(tmp_path))
    needs = [on_gpus(header, layers) for layers in (0, 1, 5, 12, 999)]
    assert len({need.host.kv + need.gpu.kv for need in needs}) == 1
    assert [need.gpu.kv for need in needs] == sorted(need.gpu.kv for need in needs)
    assert [need.host.weights for need in needs] == sorted(
        (need.host.weights for need in needs), reverse=True
    )
    assert needs[0].gpu.total == 0


def test_embeddings_used_twice_are_on_both_sides(tmp_path: Path) -> None:
    header = header_of(qwen3().write(tmp_path))
    embeddings = next(t.size for t in header.tensors if t.name == "token_embd.weight")
    need = on_gpus(header, None)
    assert need.host.weights + need.gpu.weights == on_gpus(header, 0).host.weights + embeddings


def test_every_gpu_has_a_compute_buffer_of_its_own(grouped: Header) -> None:
    assert on_gpus(grouped, None, 3).gpu.compute == 3 * on_gpus(grouped, None, 1).gpu.compute


def test_without_a_gpu_layers_stay_with_the_host(grouped: Header) -> None:
    assert on_gpus(grouped, None, 0) == on_gpus(grouped, 0, 0)
    assert on_gpus(grouped, 0, 0).gpu.total == 0


# What a rung changes


def test_a_lower_rung_needs_less(grouped: Header) -> None:
    rungs = [Rung(32768), Rung(32768, "q8_0"), Rung(8192, "q8_0"), Rung(8192, "q4_0")]
    totals = [estimate(grouped, rung).total for rung in rungs]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == len(totals)


def test_a_rung_without_a_context_gets_the_one_the_model_was_trained_on(grouped: Header) -> None:
    assert estimate(grouped, Rung()) == estimate(grouped, Rung(context=131072))


def test_a_cache_type_that_only_some_engines_know_is_taken_for_f16(grouped: Header) -> None:
    assert estimate(grouped, Rung(8192, "turbo3")) == estimate(grouped, Rung(8192, "f16"))


def test_a_recurrent_model_needs_the_same_at_every_context(tmp_path: Path) -> None:
    header = header_of(mamba().write(tmp_path))
    assert estimate(header, Rung(512)).total == estimate(header, Rung(131072)).total


def test_a_window_that_the_engine_does_not_use_saves_nothing(
    grouped: Header, tmp_path: Path
) -> None:
    shape = llama()
    windowed = Shape(
        shape.name,
        shape.architecture,
        {**shape.metadata, "attention.sliding_window": 512},
        shape.tensors,
    )
    header = header_of(windowed.write(tmp_path))
    assert estimate(header, Rung(8192)).host.kv == estimate(grouped, Rung(8192)).host.kv


def test_parts_of_a_split_model_need_what_the_whole_needs(grouped: Header) -> None:
    part = Header(grouped.architecture, grouped.metadata, (), 100)
    whole = joined([part, Header("", {}, grouped.tensors, grouped.size)])
    assert estimate(whole, Rung(8192)) == estimate(grouped, Rung(8192))


def test_a_header_that_claims_a_billion_layers_is_refused() -> None:
    hostile = Header("llama", {"llama.block_count": 10**9}, (), 100)
    with pytest.raises(BadModelFile, match="1000000000 layers"):
        estimate(hostile, Rung(8192))


def test_a_header_that_says_nothing_needs_nothing_but_is_no_crash() -> None:
    assert estimate(Header("", {}, (), 100), Rung()).total == 0
