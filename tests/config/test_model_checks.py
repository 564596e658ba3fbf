"""Ladders, params, devices and command lines that no engine could obey, in the exact words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.complaints import complaints, loaded


def rung(context: int, cache_type: str = "auto") -> str:
    return f'{{ context_size = {context}, cache_type = "{cache_type}" }}'


def ladder_of(*rungs: str) -> str:
    return f'[models.m]\npath = "a"\nladder = [{", ".join(rungs)}]'


WRONG = {
    '[engine]\nrpc = ["gpubox"]': (
        'engine.rpc[0]: "gpubox" is not an RPC server;'
        ' write its host and port, such as "gpubox:50052"'
    ),
    '[models.x]\npath = "a"\nrpc = ["a:1", "b:2,c:3", "[::1]:4"]': (
        'models.x.rpc[1]: "b:2,c:3" is not an RPC server;'
        ' write its host and port, such as "gpubox:50052"'
    ),
    "[ladder]\ncontexts = [8192, 16384]": (
        "ladder.contexts[1]: 16384 is not smaller than 8192 before it;"
        " write the contexts in descending order"
    ),
    "[ladder]\ncontexts = [0]": (
        "ladder.contexts[0]: 0 is no context; write a number of tokens such as 8192"
    ),
    ladder_of(rung(4096), rung(8192)): (
        "models.m.ladder[1].context_size: 8192 is not smaller than 4096 before it;"
        " write the contexts in descending order"
    ),
    ladder_of(rung(8192), rung(4096, "q8_0"), rung(8192)): (
        "models.m.ladder[2].context_size: 8192 is not smaller than 8192 before it;"
        " write the contexts in descending order"
    ),
    '[engine.env]\n"A=B" = "c"': (
        'engine.env."A=B": "A=B" cannot be an environment variable\'s name; '
        "write letters, digits and underscores"
    ),
    '[models.q]\npath = "a"\nset_params = { stream = true }': (
        'models.q.set_params.stream: "stream" cannot be filtered: clients read streams otherwise'
        " than other answers; remove it"
    ),
    '[models.q]\npath = "a"\nset_params = { seed = 1 }\nstrip_params = ["seed"]': (
        'models.q.strip_params[0]: "seed" is stripped, and given a value; to replace what clients'
        " say, write it in set_params alone"
    ),
    '[models.q]\npath = "a"\n[models.q.variants.a]\nset_params = { x = { y = 1, z = 2 } }\n'
    "default_params = { x = { y = 1, w = 2 } }": (
        "models.q.variants.a.default_params.x.y: it is in set_params, too; remove it from one of"
        " them"
    ),
    '[models.q]\npath = "a"\nenv = { "A-B" = "1" }': (
        'models.q.env.A-B: "A-B" cannot be an environment variable\'s name; write letters, digits'
        " and underscores"
    ),
    '[models.q]\npath = "a"\ndevices = ["CUDA0,CUDA1"]': (
        'models.q.devices[0]: "CUDA0,CUDA1" is no device; write names such as "CUDA1"'
    ),
    '[models.q]\npath = "a"\ndevices = ["none", "CUDA1"]': (
        'models.q.devices[0]: "none" stands beside other devices; remove one of them'
    ),
    '[models.q]\npath = "a"\ndevices = ["none"]\nextra_args = ["-dev", "CUDA1"]': (
        "models.q.extra_args[0]: -dev would replace `devices`; remove one of them"
    ),
}


@pytest.mark.parametrize(("text", "complaint"), WRONG.items())
def test_a_contradiction_is_told_with_its_place_its_key_and_its_cure(
    folder: Path, text: str, complaint: str
) -> None:
    assert complaints(text) == [f"llamasup.toml: {complaint}"]


@pytest.mark.parametrize(
    "rungs",
    [
        (rung(8192), rung(4096), rung(8192, "q8_0"), rung(4096, "q8_0"), rung(2048)),
        (
            rung(4096),
            "{ context_size = 8192, gpu_layers = 20 }",
            "{ context_size = 4096, gpu_layers = 20 }",
        ),
        ("{ gpu_layers = 20 }", "{ gpu_layers = 10 }"),
    ],
    ids=range(3),
)
def test_a_ladder_may_rise_in_context_where_it_falls_otherwise(
    folder: Path, rungs: tuple[str, ...]
) -> None:
    assert len(loaded(ladder_of(*rungs)).models["m"].ladder) == len(rungs)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[engine]\nargs = ["--jinja", "--cors-origins", "*"]\n', "engine.args[1]"),
        (
            '[models.m]\npath = "m.gguf"\nextra_args = ["--cors-origins", "*"]\n',
            "models.m.extra_args[0]",
        ),
    ],
)
def test_a_refused_argument_names_the_key_that_has_an_effect_instead(
    folder: Path, text: str, key: str
) -> None:
    [complaint] = complaints(text)
    assert key in complaint
    assert "server.cors_origins" in complaint


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("[]", 'this starts no program; write one such as ["PROGRAM", "${PORT}"]'),
        ('["", "${PORT}"]', 'this starts no program; write one such as ["PROGRAM", "${PORT}"]'),
        (
            '["speak", "--port", "8000"]',
            'this does not say where to listen; write "${PORT}" where the server takes its port,'
            ' or "${SOCKET}"',
        ),
        (
            '["speak", "${PORT}", "${SOCKET}"]',
            "this has ${PORT} and ${SOCKET}; write only one of them",
        ),
    ],
)
def test_a_server_is_told_once_where_to_listen(folder: Path, command: str, complaint: str) -> None:
    told = f"llamasup.toml: models.speech.command: {complaint}"
    assert complaints(f"[models.speech]\ncommand = {command}") == [told]


@pytest.mark.parametrize(
    "command",
    [
        '["speak", "-p${PORT}"]',
        '["sh", "-c", "x ${SOCKET}"]',
        '["speak"]\nenv = { LISTEN = "127.0.0.1:${PORT}" }',
    ],
)
def test_any_word_may_tell_a_server_where_to_listen(folder: Path, command: str) -> None:
    assert loaded(f"[models.speech]\ncommand = {command}").models.keys() == {"speech"}
