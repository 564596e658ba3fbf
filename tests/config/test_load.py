"""Text becomes a `Config`, or a list of everything that is wrong with it."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llamasup.config.load import (
    ConfigError,
    Problem,
    dump,
    find,
    load,
    parse_duration,
    parse_size,
)
from llamasup.config.schema import (
    Bytes,
    Config,
    EngineSettings,
    Folders,
    Log,
    ModelSettings,
    PoolSettings,
    Seconds,
    Server,
    Unfit,
)

EXAMPLE = Path(__file__).parents[2] / "llamasup.toml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty: files in it are named without a path, as an operator would."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loaded(text: str, **layers: Any) -> Config:
    Path("llamasup.toml").write_text(text, encoding="utf-8")
    return load(Path("llamasup.toml"), **layers)


def complaints(text: str, **layers: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, **layers)
    assert len(caught.value.problems) == len(str(caught.value).splitlines())
    return str(caught.value).splitlines()


# What is wrong, in the exact words

DURATIONS = 'write one such as "250ms", "90s", "30m", "1.5h" or "1d", or a number of seconds'
SIZES = 'write one such as "64MiB", "1.5GB" or "512k", or a whole number of bytes'
ADDRESSES = 'write one such as "127.0.0.1:8080", "[::1]:8080", ":8080" or "unix:/run/llamasup.sock"'
NAMES = "write printable characters without quotes, backslashes or spaces around them"
TOKENS = 'write a number of tokens such as 8192, or "auto"'

WRONG = {
    # types
    "server = 3": "server: 3 is not a table; write key = value lines under its [name]",
    "models = []": "models: a list is not a table; write key = value lines under its [name]",
    "[models]\nx = 1": "models.x: 1 is not a table; write key = value lines under its [name]",
    "[server]\ndefault_model = 1": "server.default_model: 1 is not text; write it in quotes",
    "[engine]\ncommand = true": "engine.command: true is not text; write it in quotes",
    "[engine]\ncommand = 2024-01-31": (
        "engine.command: 2024-01-31 is not text; write it in quotes"
    ),
    '[engine]\ncommand = "a\\u0000b"': (
        'engine.command: "a\\u0000b" is not plain text; remove the characters it cannot hold'
    ),
    '[engine]\nargs = "--jinja"': 'engine.args: "--jinja" is not a list; write ["--jinja"]',
    "[engine]\nargs = {}": 'engine.args: a table is not a list; write one such as ["a"]',
    '[engine]\nargs = ["a", 1]': "engine.args[1]: 1 is not text; write it in quotes",
    "[engine]\nenv = 1": "engine.env: 1 is not a table; write key = value lines under its [name]",
    "[engine.env]\nGPU = 0": "engine.env.GPU: 0 is not text; write it in quotes",
    '[engine.env]\n"A=B" = "c"': (
        'engine.env."A=B": "A=B" cannot be an environment variable\'s name; '
        "write letters, digits and underscores"
    ),
    "[server]\nlisten = 8080": ('server.listen: 8080 is not a list; write one such as ["a"]'),
    '[server]\nmax_connections = "1"': (
        'server.max_connections: "1" is not a whole number; write a number such as 4096'
    ),
    "[server]\nmax_connections = true": (
        "server.max_connections: true is not a whole number; write a number such as 4096"
    ),
    "[server]\nmax_connections = 1.0": (
        "server.max_connections: 1.0 is not a whole number; write a number such as 4096"
    ),
    f"[server]\nmax_connections = 0x{'f' * 5000}": (
        "server.max_connections: a number of more than 64 bits is not a whole number; "
        "write a number such as 4096"
    ),
    "[folders]\ncache = 1": "folders.cache: 1 is not a path; write one in quotes",
    '[folders]\nrun = ""': 'folders.run: "" is not a path; write one in quotes',
    '[folders]\nrun = "~nobody-of-that-name/x"': (
        'folders.run: "~nobody-of-that-name/x" names no known user; write the full path'
    ),
    '[log]\nlevel = "loud"': (
        'log.level: "loud" is not known here; write "debug", "info", "warning" or "error"'
    ),
    # ranges
    "[server]\nmax_connections = 0": (
        "server.max_connections: 0 is less than 1; write a number such as 4096"
    ),
    "[engine]\nport_range_start = 70000": (
        "engine.port_range_start: 70000 is not a port; "
        "write a port such as 12000, or 0 for Unix sockets"
    ),
    "[engine]\nload_timeout = 0": (
        'engine.load_timeout: 0 leaves no time at all; write a longer one such as "30s"'
    ),
    '[server]\nmax_body = "0k"': "server.max_body: 0 is less than 1; write 1 or more",
    # durations and sizes
    '[server]\ndrain_timeout = "30 quarks"': (
        f'server.drain_timeout: "30 quarks" is not a duration; {DURATIONS}'
    ),
    "[server]\ndrain_timeout = -1": f"server.drain_timeout: -1 is not a duration; {DURATIONS}",
    "[server]\ndrain_timeout = nan": f"server.drain_timeout: nan is not a duration; {DURATIONS}",
    "[server]\ndrain_timeout = inf": f"server.drain_timeout: inf is not a duration; {DURATIONS}",
    "[server]\ndrain_timeout = true": f"server.drain_timeout: true is not a duration; {DURATIONS}",
    '[server]\nmax_body = "64 apples"': f'server.max_body: "64 apples" is not a size; {SIZES}',
    "[server]\nmax_body = 1.5": f"server.max_body: 1.5 is not a size; {SIZES}",
    "[server]\nmax_body = -1": f"server.max_body: -1 is not a size; {SIZES}",
    # addresses and paths of requests
    '[server]\nlisten = "8080"': f'server.listen: "8080" is not an address; {ADDRESSES}',
    '[server]\nlisten = [":1", "x"]': f'server.listen[1]: "x" is not an address; {ADDRESSES}',
    "[server]\nlisten = []": 'server.listen: this lists no address; write one such as ":8080"',
    '[server]\npath_prefixes = ["llama"]': (
        'server.path_prefixes[0]: "llama" is not the beginning of a path; '
        'write one such as "/llama", without a slash at its end'
    ),
    # unknown keys
    '[server]\nlisen = ":1"': 'server.lisen: this is not a known key; did you mean "listen"?',
    "[pool]\nzzz = 1": 'pool.zzz: this is not a known key; known are "preload"',
    "[folders]\nzzz = 1": 'folders.zzz: this is not a known key; known are "cache" and "run"',
    "[sever]": 'sever: this is not a known key; did you mean "server"?',
    # models
    "[models.x]": "models.x.path: this is missing; add it to [models.x]",
    "[models.x]\npath = 1": "models.x.path: 1 is not a path; write one in quotes",
    '[models.qwen3]\npath = "a"\ncontext_size = "lots"': (
        f'models.qwen3.context_size: "lots" is not a whole number; {TOKENS}'
    ),
    '[models.x]\npath = "a"\ncontext_size = 0': (
        f"models.x.context_size: 0 is less than 1; {TOKENS}"
    ),
    '[models."a.b"]\npath = "a"\ngpu_layers = -2': (
        'models."a.b".gpu_layers: -2 is less than -1; '
        'write a number of layers such as 20, -1 for all, or "auto"'
    ),
    '[models.x]\npath = "a"\nthreads = true': (
        "models.x.threads: true is not a whole number; "
        'write a number of threads such as 8, or "auto"'
    ),
    '[models.x]\npath = "a"\nctxsize = 1\n': (
        'models.x.ctxsize: this is not a known key; did you mean "context_size"?'
    ),
    '[models.""]\npath = "a"': f'models."": "" cannot be a model\'s name; {NAMES}',
    '[models.x]\npath = "a"\naliases = [" y"]': (
        f'models.x.aliases[0]: " y" cannot be a model\'s name; {NAMES}'
    ),
    '[models.X]\npath = "a"\n[models.x]\npath = "a"': (
        'models.x: "X" has the same name; rename one of them'
    ),
    '[models.a]\npath = "a"\naliases = ["B"]\n[models.b]\npath = "a"': (
        'models.a.aliases[0]: "B" already means the model "b"; choose another'
    ),
    '[models.a]\npath = "a"\naliases = ["z"]\n[models.b]\npath = "a"\naliases = ["Z"]': (
        'models.b.aliases[0]: "Z" already means the model "a"; choose another'
    ),
    '[server]\ndefault_model = "x"': (
        'server.default_model: there is no model "x"; add [models.x]'
    ),
    '[server]\ndefault_model = "Qwen"\n[models.qwen3]\npath = "a"\n[models.gemma]\npath = "a"': (
        'server.default_model: there is no model "Qwen"; did you mean "qwen3"?'
    ),
    '[pool]\npreload = ["b", "zzz"]\n[models.b]\npath = "a"\n[models.a]\npath = "a"': (
        'pool.preload[1]: there is no model "zzz"; known are "a" and "b"'
    ),
}


@pytest.mark.parametrize(("text", "complaint"), WRONG.items())
def test_a_problem_is_told_with_its_place_its_key_and_its_cure(
    folder: Path, text: str, complaint: str
) -> None:
    assert complaints(text) == [f"llamasup.toml: {complaint}"]


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


def test_a_problem_can_be_read_by_programs(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded("[pool]\nzzz = 1")
    assert caught.value.problems == (
        Problem("llamasup.toml", "pool.zzz", "this is not a known key", 'known are "preload"'),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            '[server]\nlisten = "a\n',
            "llamasup.toml, line 2, column 12: Illegal character '\\n'; correct the TOML there",
        ),
        (
            "[server]\nlisten = [\n",
            "llamasup.toml, line 3, column 1: Invalid value; correct the TOML there",
        ),
        (
            "x = " + "9" * 5000,
            "llamasup.toml: a number is too long or brackets are too deep; write them shorter",
        ),
        (
            "x = " + "[" * 100_000,
            "llamasup.toml: a number is too long or brackets are too deep; write them shorter",
        ),
    ],
    ids=["line", "end", "digits", "brackets"],
)
def test_broken_toml_is_told_with_line_and_column(folder: Path, text: str, complaint: str) -> None:
    assert complaints(text) == [complaint]


def test_a_missing_file_is_told(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^no\.toml: there is no such file; create it, or"):
        load(Path("no.toml"))


def test_a_folder_in_the_file_s_place_is_told(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"this is a folder; name the file in it$"):
        load(folder)


def test_an_unreadable_file_is_told(folder: Path) -> None:
    Path("loop.toml").symlink_to("loop.toml")
    with pytest.raises(ConfigError, match=r"^loop\.toml: cannot be read \(.+\); change its perm"):
        load(Path("loop.toml"))


def test_a_file_in_another_encoding_is_told(folder: Path) -> None:
    Path("latin.toml").write_bytes('x = "é"'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"^latin\.toml: byte 6 is not UTF-8 text; save the fi"):
        load(Path("latin.toml"))


def test_a_byte_order_mark_and_windows_line_ends_are_accepted(folder: Path) -> None:
    Path("w.toml").write_bytes(b'\xef\xbb\xbf[log]\r\nlevel = "debug"\r\n')
    assert load(Path("w.toml")).log.level == "debug"


# Layers


def test_nothing_written_is_all_defaults(folder: Path) -> None:
    assert load(None) == loaded("") == Config()


def test_flags_win_over_the_environment_and_that_over_the_file(folder: Path) -> None:
    text = '[server]\nlisten = ":1"\ndrain_timeout = 1\nmax_connections = 1'
    config = loaded(
        text,
        environ={"LLAMASUP_SERVER_LISTEN": ":2", "LLAMASUP_SERVER_DRAIN_TIMEOUT": "2m"},
        flags={"server.listen": ":3"},
    )
    assert config.server.listen == (":3",)
    assert config.server.drain_timeout == Seconds(120)
    assert config.server.max_connections == 1


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("LLAMASUP_ENGINE_COMMAND", "7", "engine.command", "7"),
        ("LLAMASUP_ENGINE_ARGS", "-v, --jinja", "engine.args", ("-v", "--jinja")),
        ("LLAMASUP_ENGINE_ARGS", "", "engine.args", ()),
        ("LLAMASUP_ENGINE_PORT_RANGE_START", "12_000", "engine.port_range_start", 12000),
        ("LLAMASUP_SERVER_MAX_BODY", "1MiB", "server.max_body", 1 << 20),
        ("LLAMASUP_SERVER_MAX_BODY", "1024", "server.max_body", 1024),
        ("LLAMASUP_SERVER_IDLE_TIMEOUT", "1.5", "server.idle_timeout", 1.5),
        ("LLAMASUP_SERVER_LISTEN", ":1,:2", "server.listen", (":1", ":2")),
        ("LLAMASUP_FOLDERS_RUN", "/r", "folders.run", Path("/r")),
        ("LLAMASUP_LOG_LEVEL", "debug", "log.level", "debug"),
    ],
)
def test_a_variable_is_read_as_its_key_s_type(
    folder: Path, variable: str, text: str, key: str, value: object
) -> None:
    section, _, name = key.partition(".")
    config = load(None, {variable: text})
    assert getattr(getattr(config, section), name) == value


@pytest.mark.parametrize(
    ("variable", "text", "complaint"),
    [
        (
            "LLAMASUP_SERVER_LISEN",
            ":1",
            'this sets no known key; did you mean "LLAMASUP_SERVER_LISTEN"?',
        ),
        (
            "LLAMASUP_FOLDERS_HOME",
            "x",
            'this sets no known key; known are "LLAMASUP_FOLDERS_CACHE" and "LLAMASUP_FOLDERS_RUN"',
        ),
        (
            "LLAMASUP_POOL_PRELOAD",
            "x",
            'pool.preload[0]: there is no model "x"; add [models.x]',
        ),
        (
            "LLAMASUP_SERVER_MAX_CONNECTIONS",
            "lots",
            'server.max_connections: "lots" is not a whole number; write a number such as 4096',
        ),
        (
            "LLAMASUP_ENGINE_COMMAND",
            "\udcff",
            'engine.command: "\udcff" is not plain text; remove the characters it cannot hold',
        ),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(
    folder: Path, variable: str, text: str, complaint: str
) -> None:
    assert complaints("", environ={variable: text}) == [
        f"environment variable {variable}: {complaint}"
    ]


def test_a_table_cannot_be_set_from_the_environment(folder: Path) -> None:
    (line,) = complaints("", environ={"LLAMASUP_ENGINE_ENV": "A=1"})
    assert line.startswith("environment variable LLAMASUP_ENGINE_ENV: this sets no known key; ")


def test_variables_of_no_section_are_ignored(folder: Path) -> None:
    environ = {"LLAMASUP_PORT": "1", "LLAMASUP_MODELS_X": "1", "LLAMASUP_CONFIG": "x", "HOME": "/"}
    assert load(None, environ) == Config()


def test_a_flag_may_configure_a_model_whose_name_has_dots(folder: Path) -> None:
    flags: dict[str, object] = {"models.qwen2.5.path": "/m.gguf", "models.qwen2.5.parallel": 2}
    model = load(None, flags=flags).models["qwen2.5"]
    assert model == ModelSettings(Path("/m.gguf"), parallel=2)


def test_a_wrong_flag_is_told_as_one(folder: Path) -> None:
    flags = {"server.listen.port": 1, "sever.listen": 1, "models.x.parallel": "2"}
    assert complaints('[server]\nlisten = ":1"', flags=flags) == [
        "flag: server.listen.port: there is no place for it, server.listen is not a table; "
        "write a table there",
        "flag: models.x.path: this is missing; add it to [models.x]",
        'flag: models.x.parallel: "2" is not a whole number; write a number of slots such as 1',
        'flag: sever: this is not a known key; did you mean "server"?',
    ]


# Paths


def test_relative_paths_of_a_file_start_at_its_folder(folder: Path) -> None:
    (folder / "etc").mkdir()
    file = Path("etc/llamasup.toml")
    file.write_text('[models.x]\npath = "m/x.gguf"\n[folders]\ncache = "c"\nrun = "auto"')
    config = load(file)
    assert config.models["x"].path == folder / "etc/m/x.gguf"
    assert config.folders == Folders(cache=folder / "etc/c", run="auto")


def test_relative_paths_of_flags_and_environment_start_at_the_current_folder(folder: Path) -> None:
    (folder / "etc").mkdir()
    file = Path("etc/llamasup.toml")
    file.write_text('[models.x]\npath = "x"\n')
    config = load(file, {"LLAMASUP_FOLDERS_RUN": "r"}, {"models.x.path": "m.gguf"})
    assert config.models["x"].path == folder / "m.gguf"
    assert config.folders.run == folder / "r"


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


# Durations and sizes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("90s", 90),
        ("30m", 1800),
        ("1.5h", 5400),
        ("1d", 86400),
        ("15", 15),
        ("0.5", 0.5),
        ("0s", 0),
        ("2 m", 120),
        ("9ms", 0.009),
    ],
)
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1 quark", "1,5h", "1S", "nan", "inf", "1e3", "1h30m", "٣s", "9" * 25]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(Unfit, match=r'is not a duration; write one such as "250ms"'):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MiB", 64 << 20),
        ("1.5GB", 1_500_000_000),
        ("512k", 512_000),
        ("512Ki", 512 << 10),
        ("2 gib", 2 << 30),
        ("1T", 10**12),
        ("123", 123),
        ("7B", 7),
        ("1.1MiB", 1_153_434),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "MiB", "-1", "1.5", "1.5B", "5iB", "1 apple", "1e3", "nan", "٣k", "9" * 18 + "T"]
)
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(Unfit, match=r'write one such as "64MiB"'):
        parse_size(text)


@given(st.text(max_size=12) | st.text("0123456789.kmgtihdsbB ", max_size=24))
def test_any_text_is_a_finite_duration_and_size_or_is_refused(text: str) -> None:
    for parse in (parse_duration, parse_size):
        try:
            value = parse(text)
        except Unfit:
            continue
        assert 0 <= value < math.inf


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
    max_connections=positive,
    max_head=sizes,
    max_body=sizes,
    head_timeout=more_than_no_seconds,
    body_timeout=more_than_no_seconds,
    idle_timeout=seconds,
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
    context_size=positive_or_auto,
    cache_type=texts,
    parallel=positive,
    gpu_layers=positive_or_auto | st.integers(-1, 0),
    threads=positive_or_auto,
    batch_size=positive_or_auto,
    extra_args=text_lists,
)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    named = draw(st.lists(names, max_size=4, unique_by=str.casefold))
    main, aliases = named[:2], tuple(named[2:])
    catalog = {name: draw(models) for name in main}
    if main:
        catalog[main[0]] = attrs.evolve(catalog[main[0]], aliases=aliases)
    return Config(
        server=attrs.evolve(draw(servers), default_model=draw(st.sampled_from(["", *main]))),
        engine=draw(engines),
        pool=PoolSettings(preload=tuple(main)),
        models=catalog,
        folders=Folders(draw(paths | st.just("auto")), draw(paths | st.just("auto"))),
        log=Log(draw(st.sampled_from(["debug", "info", "warning", "error"]))),
    )


@given(configs())
@example(Config(engine=EngineSettings(args=("a\\x41", "\\", '"', "\x7f", "\x1b[0m", "é\n"))))
@example(Config(models={"a.b/c:d [e]": ModelSettings(Path("/a\\x"))}))
@settings(max_examples=60, deadline=None)
def test_what_dump_writes_loads_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, config: Config
) -> None:
    file = tmp_path_factory.getbasetemp() / "dumped.toml"
    file.write_bytes(dump(config).encode())
    assert load(file) == config


@pytest.mark.parametrize(
    ("written", "line"),
    [
        (Server(max_body=Bytes(1 << 30)), 'max_body = "1GiB"'),
        (Server(max_body=Bytes(1_000_001)), "max_body = 1000001"),
        (Server(drain_timeout=Seconds(90)), 'drain_timeout = "90s"'),
        (Server(drain_timeout=Seconds(0.25)), "drain_timeout = 0.25"),
    ],
)
def test_sizes_and_durations_are_written_for_people(written: Server, line: str) -> None:
    assert line in dump(Config(server=written)).splitlines()


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
    (model,) = written["models"].values()
    assert model.keys() == get_type_hints(ModelSettings).keys()


def test_the_example_s_model_has_the_default_values(folder: Path) -> None:
    (model,) = loaded(MODELS).models.values()
    assert model == ModelSettings(model.path)
