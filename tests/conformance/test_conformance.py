"""What is asked through llamasup is answered as the engine itself answers it: every path, every
dialect, as a stream and not, with the model named and not, right and wrong; on both real engines.

The rows are data (`rows`). Headers and bodies are compared whole, but for ids, times, and what is
known to be ours.
"""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from llamasup.config.addresses import parse_address
from llamasup.front.table import TABLE, rows_at
from llamasup.pool.work import Work
from tests.conformance.rows import CONTEXT, COUNT, EMBEDS, JUDGES, ROWS, Row, streamed
from tests.harness import Client, Llamasup, Reply, counting_model, request, running
from tests.models.shapes import bert

PREFIX = "/olla/llamacpp"

CASES = [case for row in ROWS for case in ((row, streamed(row)) if row.streams else (row,))]


def config(engine: str, folder: Path) -> Mapping[str, object]:
    """A real engine with a model of each sort, each in one slot: its prompt is in that cache."""
    able_to_infill(counting_model(folder / f"{COUNT}.gguf", up_to=100))
    attrs.evolve(bert(), name=EMBEDS).write(folder)
    attrs.evolve(bert(4, judges=True), name=JUDGES).write(folder)
    models = {
        f"models.{name}.path": str(folder / f"{name}.gguf") for name in (COUNT, EMBEDS, JUDGES)
    }
    return {
        "engine.command": engine,
        "engine.args": ["--threads", "1"],
        "server.default_model": COUNT,
        "server.path_prefixes": [PREFIX],
        f"models.{COUNT}.context_size": CONTEXT,
        **models,
    }


def able_to_infill(model: Path) -> None:
    """Give the model the three tokens that it takes to write between two texts."""
    names = [f"tokenizer.ggml.fim_{part}_token_id" for part in ("pre", "suf", "mid")]
    added = b"".join(key(name) + struct.pack("<II", 4, 100 + at) for at, name in enumerate(names))
    added += key("x") + struct.pack("<IQ", 8, padding := -(len(added) + 21) % 32) + b" " * padding
    content = model.read_bytes()
    magic, version, tensors, keys = struct.unpack_from("<4sIQQ", content)
    head = struct.pack("<4sIQQ", magic, version, tensors, keys + len(names) + 1)
    model.write_bytes(head + added + content[len(head) :])


def key(name: str) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode()


async def test_what_is_answered_through_llamasup_is_what_the_engine_answers(
    engine: str, tmp_path: Path
) -> None:
    differences: dict[str, object] = {}
    async with running(config(engine, tmp_path)) as llamasup:
        engines = {model: await loaded(llamasup, model) for model in (COUNT, EMBEDS, JUDGES)}
        for row in CASES:
            found = differences_of(llamasup, engines[row.model], row)
            if said := [difference async for difference in found]:
                differences[str(row)] = said
    assert differences == {}


def test_every_path_that_leads_to_an_engine_has_a_row() -> None:
    rows = {(row.method, row.path.partition("?")[0]) for row in ROWS}
    rows |= {("POST", "/slots/{slot}")}  # its rows name one
    paths = {
        (method.decode(), route.path.decode())
        for route in TABLE
        for method in route.methods
        if isinstance(route.goal, Work) and route.translator is None
        if b"{path}" not in route.path and method != b"HEAD"
    }
    assert paths - rows == set()


# --- one row ---


Engine = Callable[[], Client]
"""A new connection to the engine, past llamasup."""


async def loaded(llamasup: Llamasup, model: str) -> Engine:
    """The engine of this model, which is loaded first."""
    await llamasup.ask("POST", "/tokenize", {"model": model, "content": "x"})
    address = parse_address((await llamasup.model_status(model))["child"]["address"])
    return lambda: Client(address)


async def differences_of(
    llamasup: Llamasup, engine: Engine, row: Row
) -> AsyncIterator[tuple[object, ...]]:
    """All that differs between the engine's own answer and those through llamasup."""
    if row.status == 200:
        await directly(engine, row)  # so that the prompt is in its cache
    own = await directly(engine, row)
    if own.status != row.status and not row.ours:
        yield "the engine's own", own.status, own.body[:300]
    for way, path, named in (
        ("named", row.path, True),
        ("under a prefix", PREFIX + row.path, True),
        ("not named", row.path, False),
    ):
        if not named and row.model != COUNT:
            continue
        reply = await llamasup.ask(row.method, *with_model(row, path, named=named))
        for difference in compared(row, own, reply, olla=path != row.path):
            yield way, *difference


async def directly(engine: Engine, row: Row) -> Reply:
    """The engine's own answer, past llamasup."""
    path, _, _ = row.path.partition("?")
    prefix = rows_at(path.encode())[row.method.encode()].prefix.decode()
    async with engine() as client:
        path = prefix + row.path
        await client.send(request(row.method, path, row.body, {"Connection": "close"}))
        return await client.reply()


def with_model(row: Row, path: str, *, named: bool) -> tuple[str, object]:
    """The path and the body, which name the model where they can."""
    if not named or not isinstance(row.body, dict):
        query = "" if not named else f"{'&' if '?' in path else '?'}model={row.model}"
        return path + query, row.body
    return path, {"model": row.model, **row.body}


def compared(row: Row, own: Reply, reply: Reply, *, olla: bool) -> Iterator[tuple[object, ...]]:
    """What differs in one answer."""
    if not reply.complete:
        yield ("it is cut",)
    if row.says not in reply.body.decode():
        yield "it does not say", row.says, reply.body[:300]
    if row.ours:
        if reply.status != row.status or not reply.error["message"]:
            yield "status", reply.status, row.status
        return
    if reply.status != own.status:
        yield "status", reply.status, own.status, reply.body[:300]
        return
    yield from compared_heads(own, reply, olla=olla)
    if (seen := content(reply)) != (wanted := content(own)):
        yield "body", seen, wanted


OURS = {
    *("x-request-id", "via"),
    *(f"x-llamasup-{name}" for name in ("model", "instance", "request-id")),
    *(f"x-llamasup-{name}" for name in ("time-ms", "queue-ms", "replays")),
}
OLLAS = {
    f"x-olla-{name}"
    for name in ("model", "endpoint", "backend-type", "request-id", "response-time")
}
FOR_ONE_HOP = {"connection", "keep-alive", "transfer-encoding"}
LENGTH = {"content-length"}
"""Ids and times may be of different length, and so may a code that is a name with us."""


def compared_heads(own: Reply, reply: Reply, *, olla: bool) -> Iterator[tuple[object, ...]]:
    """Of the engine's head all is passed on that is not for one hop, and ours is added."""
    wanted = {
        name: value
        for name, value in own.headers.items()
        if name not in FOR_ONE_HOP | LENGTH and not name.startswith("access-control-")
    }
    ours = OURS | OLLAS if olla else OURS
    seen = {
        name: value
        for name, value in reply.headers.items()
        if name not in ours | FOR_ONE_HOP | LENGTH
    }
    if seen != wanted:
        yield "headers", seen, wanted
    if lacking := ours - reply.headers.keys():
        yield "headers that are lacking", lacking


# --- what an engine says each time that it is asked the same ---

IDS_AND_TIMES = {
    *("id", "item_id", "created", "created_at", "completed_at", "id_task", "timings"),
    *("t_start", "t_ms", "time_ms", "prompt_progress"),
}


def content(reply: Reply) -> object:
    """What of a body is the same each time."""
    kind = reply.headers.get("content-type", "")
    if kind.startswith("text/plain"):
        return [line for line in reply.body.decode().splitlines() if line.startswith("#")]
    if kind.startswith("text/event-stream"):
        return [event for line in reply.body.decode().splitlines() if (event := of_line(line))]
    return without_what_differs(reply.json()) if reply.body else b""


def of_line(line: str) -> object:
    """A line of a stream; comments only pass the time."""
    if line.startswith("data: "):
        with suppress(json.JSONDecodeError):
            return without_what_differs(json.loads(line.removeprefix("data: ")))
    return "" if line.startswith(":") else line


def without_what_differs(value: Any) -> Any:
    match value:
        case list():
            return [without_what_differs(item) for item in value]
        case {"error": {"code": 400 | "invalid_parameter"} as error}:
            # OpenAI's clients expect a name there, and get one.
            return {**value, "error": {**error, "code": "invalid_parameter"}}
        case dict():
            return {
                name: without_what_differs(member)
                for name, member in value.items()
                if name not in IDS_AND_TIMES
            }
    return value
