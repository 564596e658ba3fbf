"""Tells clients of every change of a model's state, as server-sent events: `/models/sse`.

The events are those of llama-server's router. Of changes that come faster than a client reads, it
gets the last one of each model, so however slow it is, nothing piles up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from llamasup.access.keyring import NOTHING, may_use
from llamasup.apis.dialect import server_sent_event
from llamasup.config.schema import KeySettings
from llamasup.control.asgi import Receive, Send
from llamasup.control.listing import Standing, status
from llamasup.errors import Shortage
from llamasup.events import (
    Event,
    Journal,
    LoadProgressed,
    ModelsChanged,
    OfModel,
    StateChanged,
)

MOST_FOLLOWERS: Final = 64
COMMENT_AFTER: Final = 15.0
"""Seconds without a change after which a client gets a comment: proxies cut what is silent."""

_COMMENT: Final = b":\n\n"
_ALL: Final = "*"
"""No model can have this name. The list of models itself has changed."""

_HEAD: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")],
}


class Changes:
    """Follows the journal for each client that asks."""

    def __init__(
        self,
        journal: Journal,
        standing: Callable[[str], Standing | None],
        stopping: trio.Event,
    ) -> None:
        """`standing` says how a model stands; None if there is none of that name any more."""
        self._journal = journal
        self._standing = standing
        self._stopping = stopping
        self._followers = 0

    async def follow(self, key: Callable[[], KeySettings], receive: Receive, send: Send) -> None:
        """Tell a client of all changes of the models that its key may use now, until it leaves, its
        key is taken away, or llamasup stops. Raises Shortage if too many follow already.

        If this is cancelled, nothing is left behind.
        """
        if self._followers >= MOST_FOLLOWERS:
            raise Shortage(f"{self._followers} others follow the changes already; ask again later")
        self._followers += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_left, receive, nursery.cancel_scope)
                nursery.start_soon(self._until_stopping, nursery.cancel_scope)
                await self._tell(key, send)
                nursery.cancel_scope.cancel()
        finally:
            self._followers -= 1
        await send({"type": "http.response.body", "body": b""})

    async def _tell(self, key: Callable[[], KeySettings], send: Send) -> None:
        news = _News()
        with self._journal.heard_by(news.hear, StateChanged, LoadProgressed, ModelsChanged):
            await send(_HEAD)
            await _write(send, _COMMENT)  # so that the client gets its head
            while True:
                changed = await news.taken()
                if (allowed := key()) is NOTHING:
                    return
                models = [model for model in changed if model == _ALL or may_use(allowed, model)]
                await _write(send, b"".join(map(self._event, models)) or _COMMENT)

    def _event(self, model: str) -> bytes:
        if model == _ALL:
            return server_sent_event({"model": _ALL, "event": "models_reload"})
        standing = self._standing(model)
        if standing is None:
            return server_sent_event({"model": model, "event": "model_remove"})
        data = status(standing)
        value = data.pop("value")
        document = {"model": model, "event": "model_status", "data": {"status": value, **data}}
        return server_sent_event(document)

    async def _until_stopping(self, scope: trio.CancelScope) -> None:
        await self._stopping.wait()
        scope.cancel()


class _News:
    """The models that have changed since a client was told last."""

    def __init__(self) -> None:
        self._models: dict[str, None] = {}
        self._some = trio.Event()

    def hear(self, event: Event) -> None:
        self._models[event.model if isinstance(event, OfModel) else _ALL] = None
        self._some.set()

    async def taken(self) -> list[str]:
        """The models, in the order of their changes; none if nothing changes for a while."""
        with trio.move_on_after(COMMENT_AFTER):
            await self._some.wait()
        models, self._models, self._some = [*self._models], {}, trio.Event()
        return models


async def _until_left(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


async def _write(send: Send, text: bytes) -> None:
    await send({"type": "http.response.body", "body": text, "more_body": True})
