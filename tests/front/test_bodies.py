"""Bodies together have a bound in memory and on disk; who has the most waits, and is sent away."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio

from llamasup.config.schema import Bytes
from llamasup.errors import ClientError
from llamasup.front import bodies as module
from llamasup.front import rooms
from llamasup.front.bodies import STEP, Bodies, IncomingBody, StorageFailed
from llamasup.front.json_wishes import JsonReader
from llamasup.front.rooms import Hold, OutOfRoom
from llamasup.http.requests import Request, Stored
from tests.harness import eventually, loop_holdups, no_threads

M = 1 << 20


@pytest.fixture
def bodies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bodies:
    monkeypatch.setattr(module, "_LEFT_ON_DISK", 0)
    return Bodies(Bytes(16 * M), tmp_path / "bodies")


def request() -> Request:
    return Request(b"POST", b"/tokenize", [], True, False, b"id")


def document(size: int) -> bytes:
    return json.dumps({"content": "x" * size, "model": "a", "stream": True}).encode()


async def sent(body: IncomingBody, content: bytes) -> None:
    for at in range(0, len(content), STEP):
        await body.add(content[at : at + STEP])
        await trio.lowlevel.checkpoint()


async def whole(body: Stored | bytes | bytearray) -> bytes:
    if isinstance(body, bytes | bytearray):
        return bytes(body)
    found = b""
    while len(found) < len(body):
        found += await body.read(len(found))
    return found


def incoming(bodies: Bodies, holder: str = "a") -> IncomingBody:
    return IncomingBody(bodies, Hold(bodies.memory, holder), JsonReader)


# --- where they lie ---


async def test_a_small_body_is_in_memory_and_counted_until_it_is_released(bodies: Bodies) -> None:
    body, asked = incoming(bodies), request()
    await sent(body, document(1000))
    assert await body.end(asked) is None
    assert asked.body == document(1000)
    assert bodies.memory.taken == len(document(1000))
    body.release()
    body.release()
    assert bodies.memory.taken == 0


async def test_a_large_body_is_in_a_file_without_a_name_and_was_looked_through(
    bodies: Bodies, tmp_path: Path
) -> None:
    body, asked = incoming(bodies), request()
    content = document(5 * M)
    await sent(body, content)
    found = await body.end(asked)
    assert (found and found.model, found and found.stream) == ("a", True)
    assert not isinstance(asked.body, bytes | bytearray)
    assert len(asked.body) == len(content)
    for _ in range(2):  # as for a replay
        assert await whole(asked.body) == content
    assert bodies.memory.taken == 0
    assert bodies.disk.taken == len(content)
    assert not os.listdir(tmp_path / "bodies")
    file = body._file
    assert file is not None
    body.release()
    assert bodies.disk.taken == 0
    await eventually(lambda: file._file is None)


async def test_what_is_for_no_model_stays_in_memory(bodies: Bodies) -> None:
    body, asked = IncomingBody(bodies, Hold(bodies.memory, "a"), None), request()
    await sent(body, b"no JSON" * 400_000)
    assert await body.end(asked) is None
    assert asked.body == b"no JSON" * 400_000


async def test_a_large_body_that_is_no_json_is_refused_before_it_is_whole(bodies: Bodies) -> None:
    body = incoming(bodies)
    with pytest.raises(ClientError, match="not valid JSON"):
        await sent(body, b'{"model": "a"} and more' + b" " * M)
    body.release()
    assert bodies.memory.taken == 0


async def test_no_body_holds_up_the_loop(bodies: Bodies) -> None:
    contents = [document(8 * M), b'{"x":[' + b"{}," * (2 * M) + b"{}]}"]
    await trio.lowlevel.checkpoint()
    with loop_holdups() as holdups:
        for content in contents:
            body = incoming(bodies)
            await sent(body, content)
            await body.end(request())
            body.release()
    assert 0 < holdups.longest() < 0.02


# --- a disk that is none ---


async def test_where_there_is_no_disk_memory_does(
    bodies: Bodies, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bodies").write_text("in the way")
    for _ in range(2):
        body, asked = incoming(bodies), request()
        await sent(body, document(3 * M))
        found = await body.end(asked)
        assert (found and found.model, found and found.stream) == ("a", True)
        assert asked.body == document(3 * M)
        assert bodies.memory.taken == len(document(3 * M))
        body.release()
    assert caplog.text.count("large bodies stay in memory") == 1


async def test_where_no_thread_can_be_started_memory_does(bodies: Bodies) -> None:
    body, asked = incoming(bodies), request()
    with no_threads():
        await sent(body, document(3 * M))
        await body.end(asked)
    assert asked.body == document(3 * M)
    body.release()


async def test_a_disk_that_is_nearly_full_is_left_alone(
    bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = incoming(bodies)
    await sent(body, document(2 * M))
    monkeypatch.setattr(module, "_LEFT_ON_DISK", 1 << 60)
    with pytest.raises(StorageFailed, match="No space left"):
        await sent(body, b" " * 2 * M)
    body.release()
    assert bodies.memory.taken == bodies.disk.taken == 0


async def test_a_disk_that_hangs_costs_only_the_body(
    bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DISK_PATIENCE", 0.1)
    reading, writing = os.pipe()  # nobody writes: whoever reads, hangs
    monkeypatch.setattr(module, "_refuse_a_full_disk", lambda _: os.read(reading, 1))
    body = incoming(bodies)
    with trio.fail_after(5):
        await sent(body, document(2 * M))  # no file can be had: it stays in memory
        body.release()
    os.write(writing, b"xxxx")
    monkeypatch.undo()
    await eventually(lambda: bodies._hands.borrowed_tokens == 0)
    os.close(reading)
    os.close(writing)


async def test_a_client_that_leaves_while_the_disk_hangs_leaves_nothing(
    bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = incoming(bodies)
    await sent(body, document(2 * M))
    reading, writing = os.pipe()
    monkeypatch.setattr(module, "_refuse_a_full_disk", lambda _: os.read(reading, 1))
    file = body._file
    assert file is not None
    with trio.move_on_after(0.1) as left:
        await sent(body, b" " * 2 * M)
    assert left.cancelled_caught
    body.release()
    assert bodies.memory.taken == bodies.disk.taken == 0
    os.write(writing, b"x")
    await eventually(lambda: file._file is None)
    os.close(reading)
    os.close(writing)


# --- all together ---


async def test_unfinished_uploads_hold_no_more_than_their_share(
    bodies: Bodies, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty-four of them held 1.1 GB."""
    monkeypatch.setattr(rooms, "_PATIENCE", 0.2)
    uploads = [incoming(bodies, "greedy") for _ in range(24)]
    refused = 0
    most = 0

    async def upload(body: IncomingBody) -> None:
        nonlocal refused, most
        try:
            for _ in range(6):
                await sent(body, b" " * M if body.size else b'{"x":"' + b" " * M)
                most = max(most, bodies.memory.taken)
        except OutOfRoom:
            refused += 1

    monkeypatch.setattr(module, "_LEAST_PIECE", 1 << 60)  # a disk would do for all of them
    async with trio.open_nursery() as nursery:
        for body in uploads:
            nursery.start_soon(upload, body)
    assert most <= 8 * M
    modest = incoming(bodies, "modest")
    await sent(modest, document(100_000))
    for body in [*uploads, modest]:
        body.release()
    assert bodies.memory.taken == bodies.disk.taken == 0


async def test_where_memory_is_short_bodies_go_to_the_disk_sooner(tmp_path: Path) -> None:
    bodies = Bodies(Bytes(1 * M), tmp_path)
    body, asked = incoming(bodies), request()
    await sent(body, document(900_000))
    found = await body.end(asked)
    assert (found and found.model, found and found.stream) == ("a", True)
    assert bodies.disk.taken == len(document(900_000))
    assert await whole(asked.body) == document(900_000)
    body.release()


async def test_two_things_go_wrong_at_once(
    bodies: Bodies, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No disk, and others have all the memory: the body waits, is refused, and leaves nothing."""
    monkeypatch.setattr(rooms, "_PATIENCE", 0.1)
    (tmp_path / "bodies").write_text("in the way")
    first, second = incoming(bodies), incoming(bodies)
    await sent(first, document(7 * M))
    with pytest.raises(OutOfRoom):
        await sent(second, document(7 * M))
    second.release()
    await sent(first, b" " * 100_000)
    first.release()
    assert bodies.memory.taken == 0
