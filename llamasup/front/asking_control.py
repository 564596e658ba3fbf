"""Lets control answer a request: it is one more upstream, and has to answer in bounded time."""

from __future__ import annotations

import math
from typing import Final

import trio
from attrs import evolve

from llamasup.errors import ControlTimeout
from llamasup.front.answer import Answer, Seen
from llamasup.front.relay import ReplyCut, relay
from llamasup.front.routes import ToControl
from llamasup.http.connection import Connection
from llamasup.http.requests import CLIENT, KEY, Request
from llamasup.upstream import Upstream

_PATIENCE: Final = 60.0
"""Seconds. Long enough for all its answers, except those that last."""


async def ask_control(
    connection: Connection,
    request: Request,
    control: Upstream,
    goal: ToControl,
    answer: Answer,
    key: str,
) -> None:
    """Let control answer, and tell it the client's address and the name of its key ("": none).

    Raises ControlTimeout, and what `relay` raises. If this is cancelled, the answer stays as it is.
    """
    told = _told(request, connection.peer, key)
    with trio.move_on_after(math.inf if goal.lasts else _PATIENCE):
        await relay(connection, told, control, goal.target, answer)
        return
    if answer.seen is not Seen.NOTHING:
        raise ReplyCut("control took too long to answer")
    raise ControlTimeout("llamasup took too long to answer this itself; ask again")


def _told(request: Request, peer: str, key: str) -> Request:
    """The request as control gets it. What a client itself says in our headers does not count."""
    headers = [header for header in request.headers if header[0] not in (CLIENT, KEY)]
    headers.append((CLIENT, peer.encode()))
    if key:
        headers.append((KEY, key.encode()))
    # Only a POST's body is read, and Hypercorn hangs in its reply if a body is not read.
    body = request.body if request.method == b"POST" else b""
    return evolve(request, headers=headers, body=body)
