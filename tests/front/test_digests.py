"""Equal requests have equal digests, and different ones different ones, whatever their size."""

from __future__ import annotations

import pytest
import trio

from llamasup.errors import LlamasupError
from llamasup.front.digests import Digest
from llamasup.http.requests import Request, parse_head

HEAD = b"POST /completion?model=x HTTP/1.1\r\nHost: a\r\n\r\n"


def request(body: bytes, head: bytes = HEAD) -> Request:
    made = parse_head(head)
    made.body = body
    return made


@pytest.mark.parametrize("size", [0, 10, 2 << 20])
async def test_it_is_made_of_what_an_engine_sees(size: int) -> None:
    body = b"x" * size
    digest = await Digest(request(body))()
    assert digest == await Digest(request(body))()
    with_key = HEAD.replace(b"Host: a", b"Host: a\r\nAuthorization: Bearer other")
    assert digest == await Digest(request(body, with_key))()
    assert digest != await Digest(request(body + b"y"))()
    assert digest != await Digest(request(body, HEAD.replace(b"/completion", b"/infill")))()


class InPieces:
    """A body that lies elsewhere."""

    def __init__(self, content: bytes, *, broken: bool = False) -> None:
        self._content = content
        self._broken = broken

    def __len__(self) -> int:
        return len(self._content)

    async def read(self, at: int) -> bytes:
        if self._broken:
            raise LlamasupError("the disk is gone")
        return self._content[at : at + 1000]


async def test_it_does_not_matter_where_a_body_lies() -> None:
    body = b"xyz" * 10_000
    stored = request(b"")
    stored.body = InPieces(body)
    assert await Digest(stored)() == await Digest(request(body))()


async def test_a_body_that_cannot_be_read_has_none_now() -> None:
    stored = request(b"")
    stored.body = InPieces(b"x", broken=True)
    with pytest.raises(OSError, match="the disk is gone"):
        await Digest(stored)()


async def test_it_is_made_once_and_a_large_one_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runs = 0
    run_sync = trio.to_thread.run_sync

    async def counting(*arguments: object, **how: object) -> object:
        nonlocal runs
        runs += 1
        return await run_sync(*arguments, **how)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(trio.to_thread, "run_sync", counting)
    large, small = Digest(request(b"x" * (2 << 20))), Digest(request(b"x"))
    for digest in (large, small, large, small):
        await digest()
    assert runs == 1
