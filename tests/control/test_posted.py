"""What is shown can be posted back; nothing that decides over programs and files can be changed."""

from __future__ import annotations

import json

import pytest

from llamasup.config.load import load
from llamasup.config.problems import ConfigError
from llamasup.config.schema import Config
from llamasup.config.toml_file import written
from llamasup.control.posted import out_of_reach, shown, tables
from llamasup.control.posted import read as read_tables
from llamasup.errors import Forbidden


def read(body: bytes, content_type: bytes, running: Config) -> Config:
    return read_tables(tables(body, content_type), running)


BEFORE: dict[str, object] = {
    "server.admin_key": "secret",
    "server.listen": [":1", "unix:/a.sock"],
    "engine.env": {"TOKEN": "secret"},
    "engine.args": ["--api-key", "secret", "--jinja"],
    "models.m.path": "/m.gguf",
    "models.m.extra_args": ["--hf-token", "secret", "--api-key"],
    "models.n.path": "/n.gguf",
    "models.n.env": {"TOKEN": "secret", "OTHER": "secret"},
    "models.s.command": ["speak", "--port", "${PORT}", "--api-key", "secret"],
    "models.s.env": {"TOKEN": "secret"},
    "endpoints": [{"name": "e", "url": "http://e", "key": "secret", "headers": {"X": "secret"}}],
}


@pytest.mark.parametrize("form", [json.dumps, written], ids=["json", "toml"])
def test_what_is_shown_has_no_secrets_and_means_the_same_when_it_is_posted(form: object) -> None:
    config = load(None, {}, BEFORE)
    text = form(shown(config))  # type: ignore[operator]
    assert "secret" not in text
    kind = b"application/json" if form is json.dumps else b"application/toml; charset=utf-8"
    assert read(text.encode(), kind, config) == config


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"server.admin_key": "mine"}, "server.admin_key"),
        ({"server.listen": ["unix:/b.sock"]}, "server.listen"),
        (
            {"server.listen": ["https://:1"], "server.tls_certificate": "/etc/passwd"},
            "server.tls_certificate",
        ),
        ({"engine.command": "sh"}, "engine.command"),
        ({"engine.args": ["x"]}, "engine.args"),
        ({"engine.env": {"PATH": "x"}}, "engine.env"),
        ({"models.m.path": "/etc/passwd"}, "models.m.path"),
        ({"models.m.mmproj": "/etc/passwd"}, "models.m.mmproj"),
        ({"models.m.extra_args": ["x"]}, "models.m.extra_args"),
        ({"models.m.engine": "sh"}, "models.m.engine"),
        ({"models.m.env": {"PATH": "x"}}, "models.m.env"),
        ({"models.m.rpc": ["x:1"]}, "models.m.rpc"),
        ({"engine.rpc": ["x:1"]}, "engine.rpc"),
        ({"models.s.command": ["sh", "${PORT}"]}, "models.s.command"),
        ({"models.s.env": {"PATH": "x"}}, "models.s.env"),
        ({"models.new.command": ["sh", "${PORT}"]}, "models.new.command"),
        ({"models.new.path": "/m.gguf"}, "models.new.path"),
        ({"discover.folders": ["/"]}, "discover.folders"),
        ({"folders.run": "/x"}, "folders"),
        ({"log.level": "debug"}, "log"),
    ],
    ids=str,
)
def test_what_decides_over_programs_files_and_keys_is_out_of_reach(
    change: dict[str, object], key: str
) -> None:
    before, after = load(None, {}, BEFORE), load(None, {}, {**BEFORE, **change})
    assert key in out_of_reach(before, after)


@pytest.mark.parametrize(
    "change",
    [
        {"server.listen": [":2", "unix:/a.sock"]},
        {"server.listen": [":2"]},
        {"server.default_model": "m"},
        {"models.m.context_size": 5},
        {"models.m.aliases": ["x"]},
        {"pool.max_loaded_models": 1},
        {"engine.load_timeout": 1},
        {"groups.g.members": ["m"]},
    ],
    ids=str,
)
def test_everything_else_can_be_changed(change: dict[str, object]) -> None:
    before, after = load(None, {}, BEFORE), load(None, {}, {**BEFORE, **change})
    assert out_of_reach(before, after) == []


def test_a_model_may_go() -> None:
    before = load(None, {}, BEFORE)
    told = shown(before)
    del told["models"]["n"]
    assert read(json.dumps(told).encode(), b"", before).models.keys() == {"m", "s"}


@pytest.mark.parametrize(
    ("path", "mmproj", "keys"),
    [
        ("/models/x.gguf", "none", []),
        ("/models/deep/x.gguf", "/models/mmproj.gguf", []),
        ("/models/../etc/passwd", "none", ["models.new.path"]),
        ("/modelsx/x.gguf", "none", ["models.new.path"]),
        ("/models/x.gguf", "/etc/passwd", ["models.new.mmproj"]),
    ],
)
def test_a_model_may_come_whose_file_lies_where_models_are_looked_for(
    path: str, mmproj: str, keys: list[str]
) -> None:
    folders = {**BEFORE, "discover.folders": ["/models"]}
    new = {"models.new.path": path, "models.new.mmproj": mmproj, "models.new.parallel": 4}
    before, after = load(None, {}, folders), load(None, {}, {**folders, **new})
    assert out_of_reach(before, after) == keys


def test_a_model_that_comes_brings_no_arguments() -> None:
    folders = {**BEFORE, "discover.folders": ["/models"]}
    new = {"models.new.path": "/models/x.gguf", "models.new.extra_args": ["--lora", "/etc/x"]}
    before, after = load(None, {}, folders), load(None, {}, {**folders, **new})
    assert out_of_reach(before, after) == ["models.new.extra_args"]


def test_posting_only_a_part_is_refused_with_the_hint_to_post_all_of_it() -> None:
    with pytest.raises(
        Forbidden, match=r"engine\.args.* would change by being left out.*GET /config"
    ):
        read(b'{"pool": {"turn": "5s"}}', b"", load(None, {}, BEFORE))


def test_a_refusal_names_every_key_that_is_out_of_reach() -> None:
    told = shown(load(None, {}, BEFORE))
    told["engine"]["command"] = "sh"
    told["log"]["level"] = "debug"
    with pytest.raises(Forbidden, match=r"engine\.command, log"):
        read(json.dumps(told).encode(), b"", load(None, {}, BEFORE))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", b""),
        (b"{", b"application/json"),
        (b"[]", b""),
        (b"[" * 200_000, b""),
        (b"\xff", b""),
        (b"= 1", b"application/toml"),
        (b"\xff", b"application/toml"),
        (b'{"server": 1}', b""),
        (b'{"engine": {"env": 1}}', b""),
        (b'{"pool": {"turn": NaN}}', b""),
        (b'{"unknown": {}}', b""),
    ],
)
def test_what_is_no_configuration_is_refused(body: bytes, kind: bytes) -> None:
    with pytest.raises(ConfigError):
        read(body, kind, load(None, {}, BEFORE))
