"""The whole way from what was written to a `Config`, or to everything that is wrong with it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import get_type_hints

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llamasup.config.load import dump, find, load
from llamasup.config.problems import ConfigError
from llamasup.config.schema import (
    Bytes,
    Config,
    Discover,
    EngineSettings,
    Folders,
    KeySettings,
    Log,
    ModelSettings,
    PoolSettings,
    Seconds,
    Server,
    ServerSettings,
)
from tests.config.complaints import complaints, loaded

EXAMPLE = Path(__file__).parents[2] / "llamasup.toml"


def test_nothing_written_is_all_defaults(folder: Path) -> None:
    assert load(None) == loaded("") == Config()


def test_all_problems_are_told_at_once(folder: Path) -> None:
    text = """
        [server]
        lisen = ":1"
        drain_timeout = "soon"
        default_model = "nope"
        [engine]
        args = [1, "a", 2]
        [models.a]
        parallel = 0
        [models.A]
        path = "a"
    """
    keys = [line.split(": ")[1] for line in complaints(text)]
    assert keys == [
        "server.drain_timeout",
        "server.lisen",
        "engine.args[0]",
        "engine.args[2]",
        "models.a.path",
        "models.a.parallel",
        "models.A",
        "server.default_model",
    ]


# Paths


def test_a_tilde_is_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert loaded('[models.x]\npath = "~/x.gguf"').models["x"].path == Path("/home/ada/x.gguf")


# Finding the file


@pytest.fixture
def user_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("llamasup.config.load.user_config_path", lambda name: tmp_path / name)
    (tmp_path / "llamasup").mkdir()
    return tmp_path / "llamasup" / "llamasup.toml"


def test_the_variable_s_file_is_found_first_whether_it_exists_or_not(folder: Path) -> None:
    (folder / "llamasup.toml").touch()
    assert find({"LLAMASUP_CONFIG": "other.toml"}, folder) == folder / "other.toml"
    assert find({"LLAMASUP_CONFIG": "/x.toml"}, folder) == Path("/x.toml")
    assert find({"LLAMASUP_CONFIG": ""}, folder) == folder / "llamasup.toml"


def test_the_current_folder_s_file_comes_before_the_user_s(folder: Path, user_config: Path) -> None:
    user_config.touch()
    assert find({}, folder) == user_config
    (folder / "llamasup.toml").touch()
    assert find({}, folder) == folder / "llamasup.toml"


def test_the_machine_s_file_comes_last(
    folder: Path, user_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def only_the_machine_s_exists(file: Path) -> bool:
        asked.append(file)
        return file == Path("/etc/llamasup/llamasup.toml")

    monkeypatch.setattr(os.path, "exists", only_the_machine_s_exists)
    assert find({}, folder) == Path("/etc/llamasup/llamasup.toml")
    assert asked == [folder / "llamasup.toml", user_config, Path("/etc/llamasup/llamasup.toml")]


def test_no_file_anywhere_is_none(
    folder: Path, user_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    assert find({}, folder) is None


# Writing, and reading it back

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
text_lists = st.lists(texts, max_size=3).map(tuple)
paths = texts.map(lambda text: Path("/") / text)
seconds = st.floats(0, 1e6).map(Seconds) | st.integers(0, 2**60).map(float).map(Seconds)
more_than_no_seconds = seconds.filter(lambda value: value > 0)
sizes = st.integers(1, 2**63 - 1).map(Bytes) | st.integers(1, 64).map(lambda n: Bytes(n << 20))
positive = st.integers(1, 2**63 - 1)
positive_or_auto = positive | st.just("auto")
names = texts.filter(
    lambda name: (
        name and name.isprintable() and name == name.strip() and not set(name) & set("\"'\\")
    )
)

servers = st.builds(
    Server,
    listen=st.lists(st.sampled_from([":1", "[::1]:0", "unix:/x"]), min_size=1).map(tuple),
    path_prefixes=st.lists(st.sampled_from(["/a", "/a/b"]), max_size=2).map(tuple),
    cors_origins=text_lists,
    max_connections=positive_or_auto,
    max_head=sizes,
    max_body=sizes,
    head_timeout=more_than_no_seconds,
    body_timeout=more_than_no_seconds,
    idle_timeout=more_than_no_seconds,
    send_timeout=more_than_no_seconds,
    drain_timeout=seconds,
)
engines = st.builds(
    EngineSettings,
    command=texts,
    args=text_lists,
    env=st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), texts),
    port_range_start=st.integers(0, 65535),
    load_timeout=more_than_no_seconds,
    stop_grace=seconds,
)
models = st.builds(
    ModelSettings,
    path=paths,
    mmproj=paths | st.just("none"),
    context_size=positive_or_auto,
    cache_type=texts,
    parallel=positive,
    gpu_layers=positive_or_auto | st.integers(-1, 0),
    threads=positive_or_auto,
    batch_size=positive_or_auto,
    extra_args=text_lists,
)


sizes = st.integers(0, 1 << 40)
servers_by_command = st.builds(
    ServerSettings,
    command=st.just(("speak", "--port", "${PORT}")),
    health=st.sampled_from(["", "/health"]),
    memory=sizes | st.just("auto") | st.dictionaries(st.sampled_from(["host", "CUDA0"]), sizes),
    slots=positive,
)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    named = draw(st.lists(names, max_size=4, unique_by=str.casefold))
    main, aliases = named[:2], tuple(named[2:])
    catalog = {name: draw(models | servers_by_command) for name in main}
    if main:
        catalog[main[0]] = attrs.evolve(catalog[main[0]], aliases=aliases)
    return Config(
        server=attrs.evolve(draw(servers), default_model=draw(st.sampled_from(["", *named]))),
        engine=draw(engines),
        pool=PoolSettings(preload=tuple(main)),
        models=catalog,
        discover=Discover(draw(st.lists(paths, max_size=2).map(tuple))),
        folders=Folders(draw(paths | st.just("auto")), draw(paths | st.just("auto"))),
        log=Log(draw(st.sampled_from(["debug", "info", "warning", "error"]))),
    )


@given(configs())
@example(Config(engine=EngineSettings(args=("a\\x41", "\\", '"', "\x7f", "\x1b[0m", "é\n"))))
@example(Config(models={"a.b/c:d [e]": ModelSettings(path=Path("/a\\x"))}))
@settings(max_examples=60, deadline=None)
def test_what_dump_writes_loads_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, config: Config
) -> None:
    file = tmp_path_factory.getbasetemp() / "dumped.toml"
    file.write_bytes(dump(config).encode())
    assert load(file) == config


WHOLE = EXAMPLE.read_text(encoding="utf-8")
MODELS = re.sub(r"(?m)^#(?=\S)", "", WHOLE)
"""The example with its commented-out model."""


def outcome(file: Path | None, flags: Mapping[str, object] = {}) -> Config | ConfigError:
    try:
        return load(file, flags=flags)
    except ConfigError as error:
        return error


@given(st.sampled_from([WHOLE, MODELS]), st.data())
@settings(max_examples=150, deadline=None)
def test_any_change_of_a_file_loads_or_is_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 30, len(text))))
    fragment = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
    changed = (
        text[:start] + data.draw(fragment | st.text("[]{}=.\"'\\#,-0", max_size=4)) + text[end:]
    )
    file = tmp_path_factory.getbasetemp() / "changed.toml"
    file.write_bytes(changed.encode())
    assert isinstance(outcome(file), Config | ConfigError)


scalars = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "auto", "x", "1s", "1k", ":1", "\0", "~", "~nobody-of-that-name"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)
every_key = [
    *(
        f"{section}.{key}"
        for section, table in get_type_hints(Config).items()
        if attrs.has(table)
        for key in get_type_hints(table)
    ),
    *(f"models.x.{key}" for key in get_type_hints(ModelSettings)),
    *(f"keys.x.{key}" for key in get_type_hints(KeySettings)),
    *get_type_hints(Config),
]


@given(st.dictionaries(st.sampled_from(every_key), anything, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_any_value_under_any_key_loads_or_is_a_config_error(flags: dict[str, object]) -> None:
    assert isinstance(outcome(None, flags), Config | ConfigError)


# The file that newcomers read


def test_the_example_is_exactly_the_defaults() -> None:
    assert load(EXAMPLE) == Config()


def test_the_example_shows_every_key_of_every_table() -> None:
    written = tomllib.loads(MODELS)
    assert written.keys() == get_type_hints(Config).keys()
    for section, table in get_type_hints(Config).items():
        if attrs.has(table):
            assert written[section].keys() == get_type_hints(table).keys()
    model, server = written["models"].values()
    assert model.keys() == get_type_hints(ModelSettings).keys()
    (key,) = written["keys"].values()
    assert key.keys() == get_type_hints(KeySettings).keys()
    of_servers = get_type_hints(ServerSettings).keys() - get_type_hints(ModelSettings).keys()
    assert server.keys() == of_servers


def test_the_example_s_model_has_the_default_values(folder: Path) -> None:
    model, server = loaded(MODELS).models.values()
    assert isinstance(model, ModelSettings)
    assert model == ModelSettings(path=model.path)
    assert isinstance(server, ServerSettings)
    assert server == ServerSettings(command=server.command)


def test_params_of_any_shape_are_dumped_as_they_were_written(folder: Path) -> None:
    text = """
        [models.x]
        path = "/a"
        set_params = { a = [1, "x", { b = [[1, false]], "c d" = 1e300 }], k = { "m.n" = {} } }
        [models.x.variants."a b"]
        default_params = { q = -0.5, stop = ["\\n", "ä"] }
    """
    config = loaded(text)
    assert config.models["x"].set_params["a"] == [1, "x", {"b": [[1, False]], "c d": 1e300}]
    assert loaded(dump(config)) == config


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("{ t = [1, nan] }", "nan cannot be written in JSON; write a finite number"),
        ("{ t = 2020-01-01 }", "2020-01-01 cannot be written in JSON; write it in quotes"),
        ("3", "3 is not a table; write key = value lines under its [name]"),
    ],
)
def test_what_json_cannot_hold_is_no_param(folder: Path, value: str, complaint: str) -> None:
    text = f'[models.x]\npath = "a"\nset_params = {value}'
    assert complaints(text) == [f"llamasup.toml: models.x.set_params: {complaint}"]


def test_the_example_s_key_has_the_default_values_and_lets_nobody_in(folder: Path) -> None:
    (key,) = loaded(MODELS).keys.values()
    assert key == KeySettings(key_hash=f"sha256:{'0' * 64}")
