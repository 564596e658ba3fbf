"""What has the wrong shape is refused, in the exact words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.complaints import complaints

DURATIONS = 'write one such as "250ms", "90s", "30m", "1.5h" or "1d", or a number of seconds'
SIZES = 'write one such as "64MiB", "1.5GB" or "512k", or a whole number of bytes'
TOKENS = 'write a number of tokens such as 8192, or "auto"'

WRONG = {
    # names of before
    '[server]\nbody_memory = "1GiB"': (
        "server.body_memory: this is not a known key; it is called max_buffered now"
    ),
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
    "[pool]\nqueue_full_status = 500": (
        "pool.queue_full_status: 500 is not known here; write 429 or 503"
    ),
    '[pool]\nqueue_full_status = "503"': (
        'pool.queue_full_status: "503" is not known here; write 429 or 503'
    ),
    # ranges
    '[server]\nkeepalive_after = "50ms"': (
        "server.keepalive_after: 0.05 s is too short; write 0.1 or more, or 0 for never"
    ),
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
    '[server]\nmax_body = "30 quarks"': f'server.max_body: "30 quarks" is not a size; {SIZES}',
    "[server]\nmax_body = 1.5": f"server.max_body: 1.5 is not a size; {SIZES}",
    "[server]\nmax_body = -1": f"server.max_body: -1 is not a size; {SIZES}",
    '[models.x]\npath = "x"\nunloadable = 1': (
        "models.x.unloadable: 1 is neither true nor false; write true or false"
    ),
    '[models.x]\npath = "x"\nidle_unload = "30 quarks"': (
        f'models.x.idle_unload: "30 quarks" is not a duration; {DURATIONS}'
    ),
    # unknown keys
    '[server]\nlisen = ":1"': 'server.lisen: this is not a known key; did you mean "listen"?',
    "[log]\nzzz = 1": 'log.zzz: this is not a known key; known are "format" and "level"',
    "[folders]\nzzz = 1": (
        'folders.zzz: this is not a known key; known are "cache", "run" and "state"'
    ),
    "[sever]": 'sever: this is not a known key; did you mean "server"?',
    # models
    "[models.x]": "models.x.path: this is missing; add it to [models.x], or a command",
    '[endpoints]\nname = "x"': (
        "endpoints: a table is not a list; write its heading in double brackets, such as"
        " [[endpoints]]"
    ),
    '[[endpoints]]\nname = "x"': (
        "endpoints[0].url: this is missing; add it to [[endpoints]] number 1"
    ),
    '[models.x]\npath = "a"\ncommand = ["b"]': (
        "models.x: it has a path and a command; write only one of them"
    ),
    '[models.x]\npath = "a"\nslots = 2': (
        "models.x.slots: this is for models with a command, and this one has a path; remove it"
    ),
    '[models.x]\ncommand = ["b", "${PORT}"]\ncontext_size = 1': (
        "models.x.context_size: this is for models with a path, and this one has a command;"
        " remove it"
    ),
    '[models.x]\ncommand = ["b", "${PORT}"]\nhelth = "/"': (
        'models.x.helth: this is not a known key; did you mean "health"?'
    ),
    '[models.x]\ncommand = ["b", "${PORT}"]\nhealth = "health"': (
        'models.x.health: "health" is not the path of a page; write one such as "/health"'
    ),
    '[models.x]\ncommand = ["b", "${PORT}"]\nslots = 0': (
        "models.x.slots: 0 is less than 1; write a number of requests such as 1"
    ),
    '[models.x]\ncommand = ["b", "${PORT}"]\nmemory = "much"': (
        f'models.x.memory: "much" is not a size; {SIZES}'
    ),
    '[models.x]\ncommand = ["b", "${PORT}"]\nmemory = { CUDA0 = "much" }': (
        f'models.x.memory: "much" is not a size; {SIZES}'
    ),
    '[models.x]\ncommand = ["b", "${PORT}"]\nmemory = { "CUDA 0" = 1 }': (
        'models.x.memory: "CUDA 0" is no device; write "host", or one of the engine\'s: "CUDA0"'
    ),
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
}


@pytest.mark.parametrize(("text", "complaint"), WRONG.items())
def test_a_problem_is_told_with_its_place_its_key_and_its_cure(
    folder: Path, text: str, complaint: str
) -> None:
    assert complaints(text) == [f"llamasup.toml: {complaint}"]
