"""Environment and flags over the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from llamasup.config.load import load
from llamasup.config.problems import ConfigError
from llamasup.config.schema import Config, ModelSettings, Seconds
from tests.config.complaints import complaints, loaded


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
        ("LLAMASUP_DISCOVER_FOLDERS", "/a, /b", "discover.folders", (Path("/a"), Path("/b"))),
        ("LLAMASUP_LOG_LEVEL", "debug", "log.level", "debug"),
        ("LLAMASUP_POOL_QUEUE_FULL_STATUS", "503", "pool.queue_full_status", 503),
        ("LLAMASUP_LADDER_CONTEXTS", "8192, 4_096", "ladder.contexts", (8192, 4096)),
        ("LLAMASUP_DISCOVER_CONTEXT_SIZE", "8192", "discover.context_size", 8192),
        ("LLAMASUP_DISCOVER_CONTEXT_SIZE", "auto", "discover.context_size", "auto"),
        ("LLAMASUP_DISCOVER_PARALLEL", "4", "discover.parallel", 4),
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
            'this sets no known key; known are "LLAMASUP_FOLDERS_CACHE", "LLAMASUP_FOLDERS_RUN"'
            ' and "LLAMASUP_FOLDERS_STATE"',
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


def test_a_variable_that_had_another_name_is_told_by_its_new_one(folder: Path) -> None:
    (line,) = complaints("", environ={"LLAMASUP_SERVER_BODY_MEMORY": "1GiB"})
    assert line == (
        "environment variable LLAMASUP_SERVER_BODY_MEMORY: this sets no known key;"
        " it is called LLAMASUP_SERVER_MAX_BUFFERED now"
    )


def test_a_table_cannot_be_set_from_the_environment(folder: Path) -> None:
    (line,) = complaints("", environ={"LLAMASUP_ENGINE_ENV": "A=1"})
    assert line.startswith("environment variable LLAMASUP_ENGINE_ENV: this sets no known key; ")


def test_an_operator_s_port_is_no_service_of_kubernetes(folder: Path) -> None:
    (line,) = complaints("", environ={"LLAMASUP_SERVER_PORT": "8080"})
    assert line.startswith("environment variable LLAMASUP_SERVER_PORT: this sets no known key; ")


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("LLAMASUP_SERVR_LISTEN", "LLAMASUP_SERVER_LISTEN"),
        ("LLAMASUP_LOGLEVEL", "LLAMASUP_LOG_LEVEL"),
    ],
)
def test_a_slip_in_a_section_is_told_as_well(folder: Path, variable: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f'did you mean "{meant}"'):
        load(None, {variable: "x"})


def test_variables_of_no_section_are_ignored(folder: Path) -> None:
    environ = {"LLAMASUP_PORT": "1", "LLAMASUP_CONFIG": "x", "HOME": "/"}
    assert load(None, environ) == Config()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("LLAMASUP_SERVER_SERVICE_HOST", "10.0.0.11"),
        ("LLAMASUP_SERVER_SERVICE_PORT", "8080"),
        ("LLAMASUP_SERVER_SERVICE_PORT_HTTP", "8080"),
        ("LLAMASUP_SERVER_PORT", "tcp://10.0.0.11:8080"),
        ("LLAMASUP_POOL_PORT", "udp://10.0.0.11:8080"),
        ("LLAMASUP_SERVER_PORT_8080_TCP", "tcp://10.0.0.11:8080"),
        ("LLAMASUP_SERVER_PORT_8080_TCP_PROTO", "tcp"),
        ("LLAMASUP_SERVER_PORT_8080_TCP_PORT", "8080"),
        ("LLAMASUP_SERVER_PORT_8080_TCP_ADDR", "10.0.0.11"),
    ],
)
def test_what_kubernetes_says_of_a_service_called_llamasup_server_is_ignored(
    folder: Path, variable: str, text: str
) -> None:
    assert load(None, {variable: text}) == Config()


def test_a_flag_may_configure_a_model_whose_name_has_dots(folder: Path) -> None:
    flags: dict[str, object] = {"models.qwen2.5.path": "/m.gguf", "models.qwen2.5.parallel": 2}
    model = load(None, flags=flags).models["qwen2.5"]
    assert model == ModelSettings(path=Path("/m.gguf"), parallel=2)


def test_a_wrong_flag_is_told_as_one(folder: Path) -> None:
    flags = {"server.listen.port": 1, "sever.listen": 1, "models.x.parallel": "2"}
    assert complaints('[server]\nlisten = ":1"', flags=flags) == [
        "command line: server.listen.port: there is no place for it, server.listen is not a table; "
        "write a table there",
        "command line: models.x.path: this is missing; add it to [models.x], or a command",
        'command line: models.x.parallel: "2" is not a whole number; write a number of slots such'
        " as 1",
        'command line: sever: this is not a known key; did you mean "server"?',
    ]


def test_a_models_keys_are_set_by_its_name_in_capitals(folder: Path) -> None:
    environ = {
        "LLAMASUP_MODELS_QWEN3_8B_CONTEXT_SIZE": "4096",
        "LLAMASUP_MODELS_QWEN3_8B_UNLOADABLE": "false",
        "LLAMASUP_MODELS_QWEN3_8B_ALIASES": "a,b",
        "LLAMASUP_MODELS_PHI_4_GGUF_PARALLEL": "3",
    }
    flags = {"models.phi.4-gguf.path": "/phi.gguf"}
    config = loaded('[models."qwen3-8b"]\npath = "x.gguf"\n', environ=environ, flags=flags)
    qwen = config.models["qwen3-8b"]
    assert (qwen.context_size, qwen.unloadable, qwen.aliases) == (4096, False, ("a", "b"))
    assert config.models["phi.4-gguf"].parallel == 3


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("LLAMASUP_MODELS_QWEN3_PARALEL", 'did you mean "LLAMASUP_MODELS_QWEN3_PARALLEL"'),
        ("LLAMASUP_MODELS_OTHER_PARALLEL", "LLAMASUP_MODELS_QWEN3_PARALLEL"),
        ("LLAMASUP_MODELS_QWEN3_LADDER", "sets no known key"),
    ],
)
def test_a_models_variable_that_sets_nothing_is_told(
    folder: Path, variable: str, words: str
) -> None:
    [complaint] = complaints('[models.qwen3]\npath = "x.gguf"\n', environ={variable: "2"})
    assert words in complaint


def test_without_any_model_a_variable_of_one_is_told_what_to_do(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[models\.NAME\].*LLAMASUP_DISCOVER_PARALLEL"):
        load(None, {"LLAMASUP_MODELS_X_PARALLEL": "2"})


def test_of_two_models_that_look_alike_in_capitals_neither_is_meant(folder: Path) -> None:
    text = '[models.a-b]\npath = "x.gguf"\n[models.a_b]\npath = "y.gguf"\n'
    [complaint] = complaints(text, environ={"LLAMASUP_MODELS_A_B_PARALLEL": "2"})
    assert "sets no known key" in complaint
