"""The architecture, checked on the source itself: rooms, purity, docstrings, names and tests.

Whoever has to change a table here is about to change the architecture: `llamasup/__init__.py`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]

ROOMS = (
    "__init__",
    "errors",
    "states",
    "shortages",
    "events",
    "apis",
    "logs",
    "narrator",
    "tending",
    "files",
    "threads",
    "ownership",
    "processes",
    "config",
    "access",
    "http",
    "upstream",
    "models",
    "memory",
    "endpoints",
    "learned",
    "engine",
    "children",
    "pool",
    "front",
    "control",
    "systemd",
    "pid1",
    "terminal",
    "stop",
    "running",
    "reload",
    "serve",
    "cli",
    "__main__",
)
"""From the ground up: each imports only from itself and from those above it in this list."""

PURE = (
    "access.admin_key",
    "access.consumption",
    "access.headers",
    "access.keyring",
    "access.limits",
    "access.pages",
    "access.rights",
    "apis.anthropic_messages",
    "apis.dialect",
    "apis.dialects",
    "apis.llama_cpp",
    "apis.ollama",
    "apis.ollama_chat",
    "apis.ollama_embed",
    "apis.ollama_generate",
    "apis.ollama_models",
    "apis.ollama_replies",
    "apis.ollama_requests",
    "apis.openai",
    "apis.openai_chat",
    "apis.openai_completions",
    "apis.openai_others",
    "apis.openai_responses",
    "apis.said",
    "apis.translation",
    "children.plan",
    "children.restarts",
    "children.signs",
    "children.suspects",
    "config.absolute_paths",
    "config.addresses",
    "config.checks",
    "config.endpoint_checks",
    "config.layers",
    "config.model_checks",
    "config.name_checks",
    "config.problems",
    "config.schema",
    "config.tree",
    "config.units",
    "config.urls",
    "config.wording",
    "control.health",
    "control.listing",
    "control.model_fits",
    "control.ollama_documents",
    "control.openapi",
    "endpoints.answers",
    "endpoints.balance",
    "endpoints.forwarding",
    "endpoints.health",
    "endpoints.prefix",
    "endpoints.renamed",
    "engine.argv",
    "engine.breakdown",
    "engine.cores",
    "engine.devices",
    "engine.error_messages",
    "engine.failures",
    "engine.loglines",
    "engine.memory_args",
    "errors",
    "events",
    "front.answer",
    "front.callers",
    "front.guests",
    "front.body_limits",
    "front.losses",
    "front.margins",
    "front.own_replies",
    "front.purposes",
    "front.refusals",
    "front.rendering",
    "front.routes",
    "front.shares",
    "front.stream_events",
    "front.table",
    "front.translated_answer",
    "front.way",
    "front.form_wishes",
    "front.json_wishes",
    "front.wish_readers",
    "front.wishes",
    "http.framing",
    "http.heads",
    "http.reply_heads",
    "http.request_heads",
    "http.requests",
    "http.retrying",
    "memory.cards",
    "memory.estimate",
    "memory.ladder",
    "memory.listing",
    "memory.measured",
    "memory.readings",
    "memory.room",
    "models.discover",
    "models.facts",
    "models.glances",
    "models.names",
    "models.params",
    "models.profile",
    "models.purpose",
    "pool.admission",
    "pool.budgets",
    "pool.queue",
    "pool.tally",
    "pool.trail",
    "pool.work",
    "states",
)
"""They decide, and leave all doing to others: tests need no world around them."""

WORLDLY_MODULES = {
    *("asyncio", "select", "selectors", "socket", "ssl", "subprocess", "threading", "trio"),
    *("datetime", "random", "secrets", "time", "uuid"),
    *("fcntl", "glob", "io", "logging", "platformdirs", "shutil", "tempfile"),
}
PURE_PARTS_OF_OS = {"pathsep", "sep"}
DEEDS_OF_PATHS = {
    *("open", "read_bytes", "read_text", "write_bytes", "write_text", "touch", "mkdir"),
    *("exists", "is_dir", "is_file", "is_socket", "iterdir", "glob", "rglob", "stat", "lstat"),
    *("absolute", "cwd", "expanduser", "home", "readlink", "resolve", "samefile"),
    *("chmod", "hardlink_to", "rename", "rmdir", "symlink_to", "unlink"),
}
WORLDLY_ON_PURPOSE = {
    ("http.requests", "random"): "a request that came without an id is given one",
    ("control.ollama_documents", "datetime"): "it writes given times as text, and reads no clock",
}

UNDOCUMENTED_HELPERS = {
    "engine.embedded": "a program of its own: nobody imports its functions",
}

WITHOUT_TESTS = {
    "children.landlord": "protocols: there is nothing to run",
    "cli.check": "end_to_end/test_command_line.py runs it as operators do",
    "cli.models": "end_to_end/test_models.py runs it as operators do",
    "cli.ping": "end_to_end/test_ping.py runs it as operators do",
    "cli.options": "end_to_end/test_command_line.py uses every option",
    "upstream": "front/test_relay.py and pool/test_pool.py see what each of them makes of it",
    "http.question": "children/test_probe.py and endpoints/test_probe.py ask with it",
    "pool.lease": "what is abstract has nothing to run",
    "pool.remote_lease": "end_to_end/test_endpoints.py sees what clients and instances get of it",
    "cli.serve": "end_to_end/test_command_line.py runs it as operators do",
    "front.desk": "holds what others are asked for; test_reload.py sees what it adopts",
    "stop": "end_to_end/test_shutdown.py stops it in every way",
    "pool.work": "two words, and nothing that could be wrong with them",
}
TESTS_OF_THE_WHOLE = {
    *(
        "bench",
        "chaos",
        "clients",
        "conformance",
        "containers",
        "devices",
        "end_to_end",
        "fakes",
        "fuzz",
    ),
    *(
        "front/test_hostile.py",
        "front/test_hostile_upstreams.py",
        "pool/test_simulation.py",
        "test_examples.py",
        "test_house.py",
    ),
}

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def named(file: Path) -> str:
    """The module's name within llamasup: `front.relay`, `cli.__init__`."""
    return ".".join(file.relative_to(HOUSE / "llamasup").with_suffix("").parts)


MODULES = {named(file): file for file in sorted((HOUSE / "llamasup").rglob("*.py"))}
TREES = {name: ast.parse(file.read_bytes()) for name, file in MODULES.items()}

each_module = pytest.mark.parametrize("module", TREES)


# What imports what


def imported(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that is imported, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide which room they lead to"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_meant(name: str) -> str | None:
    """The module behind `llamasup.x.y`, where y may be a module, a package or a name in x."""
    inner = name.removeprefix("llamasup.")
    outer = inner.rpartition(".")[0]
    meanings = (inner, f"{inner}.__init__", outer, f"{outer}.__init__")
    return next((module for module in meanings if module in MODULES), None)


def own_imports(module: str) -> set[str]:
    """The modules of llamasup that one imports."""
    names = {name for name in imported(TREES[module]) if name.startswith("llamasup.")}
    return {found for found in map(module_meant, names) if found is not None}


def room(module: str) -> str:
    return module.partition(".")[0]


def test_every_module_is_in_a_room_and_every_room_is_there() -> None:
    assert {room(module) for module in MODULES} == set(ROOMS)


@each_module
def test_a_room_imports_only_from_rooms_above_it(module: str) -> None:
    rank = ROOMS.index(room(module))
    assert {other for other in own_imports(module) if ROOMS.index(room(other)) > rank} == set()


def test_no_module_imports_itself_on_a_detour() -> None:
    TopologicalSorter({module: own_imports(module) for module in MODULES}).prepare()


# Who is pure


def worldly(tree: ast.AST) -> Iterator[str]:
    """All that reaches out of the source into the world: files, clocks, sockets, chance."""
    for name in imported(tree):
        package, _, part = name.partition(".")
        if package in WORLDLY_MODULES or (package == "os" and part not in {"", *PURE_PARTS_OF_OS}):
            yield package
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="open" | "print" | "input" as function)):
                yield function
            case ast.Attribute(value=ast.Name(id="os"), attr=part):
                if part not in PURE_PARTS_OF_OS:
                    yield f"os.{part}"
            case ast.Call(func=ast.Attribute(attr=deed)) if deed in DEEDS_OF_PATHS:
                yield deed


@pytest.mark.parametrize("module", PURE)
def test_a_pure_module_touches_nothing_of_the_world(module: str) -> None:
    allowed = {thing for name, thing in WORLDLY_ON_PURPOSE if name == module}
    assert set(worldly(TREES[module])) == allowed


@pytest.mark.parametrize(
    ("source", "thing"),
    [
        ("import trio", "trio"),
        ("def f():\n    from time import monotonic", "time"),
        ("import os\nos.environ", "os.environ"),
        ("from os import stat", "os"),
        ("open('x')", "open"),
        ("path.read_text()", "read_text"),
        ("Path.cwd()", "cwd"),
    ],
)
def test_touching_the_world_is_noticed(source: str, thing: str) -> None:
    assert set(worldly(ast.parse(source))) == {thing}


# One way to do each thing

BORDERS = {
    "to_thread": {"threads"},
    "killpg": {"processes.identity", "processes.process"},
    "open_process": {"processes.process"},
    "getaddrinfo": {"children.remotes", "endpoints.names", "http.listeners"},
}
"""What few modules may call, each of which makes of its failures what all others expect."""


@pytest.mark.parametrize("name", BORDERS)
def test_what_has_a_border_is_called_there_alone(name: str) -> None:
    callers = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == name
    }
    assert callers == BORDERS[name]


# What is said about it


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, Definition]]:
    """Public classes, their public methods, and public functions; not what is within functions."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}{node.name}.")


@each_module
def test_a_module_says_what_it_is_for(module: str) -> None:
    assert ast.get_docstring(TREES[module])


@pytest.mark.parametrize("module", sorted(TREES.keys() - UNDOCUMENTED_HELPERS.keys()))
def test_all_that_is_public_has_a_docstring(module: str) -> None:
    definitions = public(TREES[module].body)
    assert [name for name, node in definitions if not ast.get_docstring(node)] == []


def test_no_file_is_a_drawer_for_everything() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    files = [*MODULES.values(), *(HOUSE / "tests").rglob("*.py")]
    names = {file: {file.stem, file.parent.name} for file in files}
    assert [file for file in files if names[file] & drawers] == []


# Where the tests are


def its_test(module: str) -> Path:
    *folders, name = module.split(".")
    return Path(*folders, f"test_{name}.py")


TESTED = {
    its_test(module): module
    for module in MODULES
    if not module.endswith(("__init__", "__main__")) and module not in WITHOUT_TESTS
}


@pytest.mark.parametrize("file", TESTED, ids=str)
def test_every_module_has_its_tests(file: Path) -> None:
    assert (HOUSE / "tests" / file).is_file()


def test_every_test_belongs_to_a_module() -> None:
    files = {file.relative_to(HOUSE / "tests") for file in (HOUSE / "tests").rglob("test_*.py")}
    of_the_whole = {file for file in files if {file.parts[0], str(file)} & TESTS_OF_THE_WHOLE}
    strays = files - of_the_whole - TESTED.keys()
    assert strays == set()
