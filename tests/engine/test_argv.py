"""The command line says what the settings say, in flags that the engine knows; the user's win."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from llamasup.children.launcher import Launcher
from llamasup.config.addresses import Address, TcpAddress, UnixAddress
from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.config.schema import ModelSettings
from llamasup.engine.argv import argv, asks_for_keys, environment, files_in, own_args
from llamasup.engine.locate import Engine, Program
from llamasup.memory.ladder import Rung, ladder
from llamasup.models.purpose import Purpose
from llamasup.processes.run_folder import own_run_folder
from llamasup.states import ChildState

FLAGS = frozenset(
    {"--model", "--host", "--port", "--alias", "--parallel", "--threads-http", "--ctx-size"}
    | {"--cache-type-k", "--cache-type-v", "--gpu-layers", "--threads", "--batch-size"}
    | {"--cache-ram", "--metrics", "--slots"}
)
ENGINE = Engine(Program(("/opt/llama-server",), Path("/opt")), "version: 1", FLAGS, True)
SOCKET = UnixAddress("/run/1.sock")
SETTINGS = ModelSettings(path=Path("m.gguf"))
CACHE_RAM = 300 << 20


def line(
    settings: ModelSettings = SETTINGS,
    *,
    engine: Engine = ENGINE,
    rung: Rung | None = None,
    address: Address = SOCKET,
    engine_args: tuple[str, ...] = (),
) -> str:
    rung = rung or first_rung(settings)
    return " ".join(argv(engine, "qwen", settings, rung, address, CACHE_RAM, engine_args))


def first_rung(settings: ModelSettings) -> Rung:
    """The settings themselves, where no smaller contexts are given."""
    return ladder(settings, contexts=())[0]


def test_a_model_without_wishes_leaves_the_choice_to_the_engine() -> None:
    assert line() == (
        "/opt/llama-server --model m.gguf --host /run/1.sock --alias qwen --parallel 1"
        " --threads-http 32 --cache-ram 300 --metrics --slots"
    )


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"context_size": 8192}, "--ctx-size 8192"),
        ({"cache_type": "q8_0"}, "--cache-type-k q8_0 --cache-type-v q8_0"),
        ({"gpu_layers": 0}, "--gpu-layers 0"),
        ({"gpu_layers": 20}, "--gpu-layers 20"),
        ({"gpu_layers": -1}, "--gpu-layers 999"),
        ({"threads": 4}, "--threads 4"),
        ({"batch_size": 512}, "--batch-size 512"),
        ({"parallel": 4}, "--parallel 4 --threads-http 32"),
        ({"parallel": 64}, "--parallel 64 --threads-http 80"),
    ],
)
def test_every_wish_has_its_words(wish: Mapping[str, object], words: str) -> None:
    assert f" {words} " in line(evolve(SETTINGS, **wish))  # type: ignore[arg-type]


def test_the_rung_decides_what_it_names() -> None:
    settings = evolve(SETTINGS, context_size=32768, cache_type="f16", gpu_layers=99)
    lower = Rung(context=4096, cache_type="q8_0", gpu_layers=10)
    words = line(settings, rung=lower)
    assert "--ctx-size 4096 --cache-type-k q8_0 --cache-type-v q8_0 --gpu-layers 10" in words
    assert "32768" not in words


def test_a_port_is_named_beside_its_host() -> None:
    assert " --host 127.0.0.1 --port 12000 " in line(address=TcpAddress("127.0.0.1", 12000))


def test_a_command_of_several_words_stays_whole() -> None:
    llama = evolve(ENGINE, program=Program(("/opt/llama", "serve"), Path("/opt")))
    assert line(engine=llama).startswith("/opt/llama serve --model m.gguf ")


words = st.lists(st.text(min_size=1, max_size=9), max_size=3).map(tuple)
settings = st.builds(
    ModelSettings,
    path=st.just(Path("m.gguf")),
    context_size=st.just("auto") | st.integers(1, 1 << 20),
    cache_type=st.sampled_from(["auto", "f16", "q8_0"]),
    parallel=st.integers(1, 99),
    gpu_layers=st.just("auto") | st.integers(-1, 99),
    threads=st.just("auto") | st.integers(1, 64),
    batch_size=st.just("auto") | st.integers(1, 4096),
    extra_args=words,
)


@given(settings, words, st.frozensets(st.sampled_from(sorted(FLAGS))))
def test_only_known_flags_are_used_and_the_users_arguments_come_last(
    settings: ModelSettings, engine_args: tuple[str, ...], known: frozenset[str]
) -> None:
    engine = evolve(ENGINE, flags=known | {"--model", "--host"})
    said = argv(engine, "qwen", settings, first_rung(settings), SOCKET, CACHE_RAM, engine_args)
    own = said[: len(said) - len(engine_args) - len(settings.extra_args)]
    assert said == [*own, *engine_args, *settings.extra_args]
    assert {word for word in own if word.startswith("--")} <= engine.flags


@pytest.mark.parametrize(
    ("purpose", "flags"),
    [
        (Purpose.GENERATE, set()),
        (Purpose.EMBED, {"--embeddings"}),
        (Purpose.RERANK, {"--reranking"}),
        (Purpose.EMBED_ANYHOW, {"--embeddings", "--pooling"}),
    ],
)
def test_the_engine_is_told_what_the_model_is_for_unless_the_operator_does(
    purpose: Purpose, flags: set[str]
) -> None:
    its_own = {"--embeddings", "--reranking", "--pooling"}
    engine = evolve(ENGINE, flags=FLAGS | its_own)

    def told(*own: str, engine_args: tuple[str, ...] = ()) -> set[str]:
        settings = evolve(SETTINGS, extra_args=own)
        rung = first_rung(settings)
        words = argv(engine, "qwen", settings, rung, SOCKET, CACHE_RAM, engine_args, purpose)
        return its_own & {*words}

    assert told() == flags
    assert told("--pooling", "mean") == {"--pooling"}
    assert told("--embeddings") == {"--embeddings"}
    assert told(engine_args=("--rerank",)) == set()


def test_a_model_s_devices_are_named_before_its_own_arguments() -> None:
    own = evolve(SETTINGS, devices=("CUDA1", "CUDA0"), extra_args=("--x",))
    assert own_args(["--jinja"], own) == ["--jinja", "--device", "CUDA1,CUDA0", "--x"]
    assert own_args(["--jinja"], SETTINGS) == ["--jinja", *SETTINGS.extra_args]


# --- the environment ---


@pytest.mark.parametrize(("platform", "prefix"), [("linux", "LD_"), ("darwin", "DYLD_")])
@pytest.mark.parametrize(
    ("before", "after"), [({}, "/opt"), ({"LIBRARY_PATH": "/usr/x"}, "/opt:/usr/x")]
)
def test_the_programs_own_libraries_come_first(
    platform: str, prefix: str, before: dict[str, str], after: str
) -> None:
    base = {prefix + name: value for name, value in before.items()}
    assert environment(ENGINE.program, base, {}, platform)[f"{prefix}LIBRARY_PATH"] == after


def test_a_program_that_needs_no_help_keeps_the_library_path() -> None:
    program = Program(("python",), None)
    assert "LD_LIBRARY_PATH" not in environment(program, {}, {}, "linux")
    kept = environment(program, {"LD_LIBRARY_PATH": "/usr/x"}, {}, "linux")
    assert kept["LD_LIBRARY_PATH"] == "/usr/x"


def test_the_users_environment_wins_over_everything() -> None:
    extra = {"LD_LIBRARY_PATH": "/mine", "GGML_NO_BACKTRACE": "0", "PATH": "/bin"}
    made = environment(ENGINE.program, {"PATH": "/usr/bin", "HOME": "/home/me"}, extra, "linux")
    assert extra.items() <= made.items()
    assert made["HOME"] == "/home/me"
    assert made["LLAMA_SERVER_ROUTER_PORT"]


# --- real engines ---


async def test_real_engines_know_every_flag_and_start_with_all_of_them(
    counting: dict[str, object],
) -> None:
    wishes = {"threads": 1, "batch_size": 256}
    config = {**counting, **{f"models.count.{key}": value for key, value in wishes.items()}}
    with (
        tempfile.TemporaryDirectory(prefix="llamasup-test-") as base,
        own_run_folder(Path(base)) as (folder, _),
    ):
        whole = load(None, {}, config)
        launcher = Launcher(InEffect(whole), os.environ, Path(base), folder)
        engine = await launcher.engines.common.now()
        child = await launcher.child("count", whole.models["count"], Rung(2048, "f16", 0))
        used = {word for word in child.launch.argv if word.startswith("--")}
        assert used == FLAGS - {"--port"}
        assert used <= engine.flags
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child.run)
            await child.settled.wait()
            assert child.state is ChildState.READY
            child.stop()


def test_a_model_with_eyes_gets_its_projector_where_the_engine_knows_any() -> None:
    seeing = evolve(SETTINGS, mmproj=Path("eyes.gguf"))
    assert "eyes" not in line(seeing)
    knowing = evolve(ENGINE, flags=FLAGS | {"--mmproj"})
    assert " --mmproj eyes.gguf " in line(seeing, engine=knowing)


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "LANG", "LC_ALL", "XDG_CACHE_HOME", "LD_LIBRARY_PATH", "PYTHONPATH"),
        *(
            "CUDA_VISIBLE_DEVICES",
            "NVIDIA_VISIBLE_DEVICES",
            "HIP_VISIBLE_DEVICES",
            "OMP_NUM_THREADS",
        ),
        *(
            "GGML_VK_VISIBLE_DEVICES",
            "VK_DRIVER_FILES",
            "LLAMA_ARG_THREADS",
            "ONEAPI_DEVICE_SELECTOR",
        ),
    ],
)
def test_what_an_engine_may_need_of_our_environment_it_gets(name: str) -> None:
    assert environment(ENGINE.program, {name: "x"}, {}, "linux")[name].endswith("x")


@pytest.mark.parametrize(
    "name",
    [
        *("LLAMASUP_SERVER_ADMIN_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"),
        *("OPENAI_API_KEY", "NOTIFY_SOCKET", "WATCHDOG_PID", "SSH_AUTH_SOCK", "KUBERNETES_PORT"),
        *("LLAMA_API_KEY", "LLAMA_ARG_HF_TOKEN", "NVIDIA_API_KEY", "URL", "GITHUB_TOKEN"),
    ],
)
def test_what_is_not_its_affair_it_gets_only_if_the_operator_says_so(name: str) -> None:
    assert name not in environment(ENGINE.program, {name: "x"}, {}, "linux")
    assert environment(ENGINE.program, {}, {name: "x"}, "linux")[name] == "x"


@pytest.mark.parametrize(
    ("args", "env", "asks"),
    [
        (["--api-key", "k"], {}, True),
        (["--api-key-file", "f"], {}, True),
        ([], {"LLAMA_API_KEY": "k"}, True),
        (["--alias", "x"], {"HF_TOKEN": "k"}, False),
    ],
)
def test_an_engine_asks_for_keys_if_the_operator_has_told_it_to(
    args: list[str], env: dict[str, str], asks: bool
) -> None:
    assert asks_for_keys(args, env) is asks


@pytest.mark.parametrize(
    ("args", "files"),
    [
        (["--lora", "a.gguf"], ["a.gguf"]),
        (["--lora", "a.gguf,b.gguf", "--mmproj", "c.gguf"], ["a.gguf", "b.gguf", "c.gguf"]),
        (["--lora-scaled", "C:/a.gguf:0.5,b.gguf"], ["C:/a.gguf", "b.gguf"]),
        (["--log-file", "log", "-c", "4096", "--verbose"], []),
        (["-md"], []),
    ],
)
def test_the_files_are_known_that_an_operators_arguments_name(
    args: list[str], files: list[str]
) -> None:
    assert [str(file) for file in files_in(args)] == files
