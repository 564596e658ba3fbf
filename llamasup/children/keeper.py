"""A keeper owns one model's children over time: starts them at need, one at a time.

A load belongs to the keeper, not to the request that caused it. Requests wait for it, and may
leave; it goes on. Otherwise a client that gives up after a minute and tries again would never see
a model that takes two minutes to load.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import trio

from llamasup.children.child import Child
from llamasup.errors import LlamasupError, ModelUnavailable
from llamasup.states import ChildState, KeeperState, moved

log = logging.getLogger(__name__)

MakeChild = Callable[[], Awaitable[Child]]
"""Plans the next incarnation. Raises ModelUnavailable if there is no way to start one."""


class _Load:
    """One incarnation as those see it who wait for it."""

    def __init__(self) -> None:
        self.settled = trio.Event()
        """It is ready, or never will be."""

        self.over = trio.Event()
        self.failure: LlamasupError | None = None


class Keeper:
    """One model. Its task lives in `nursery` while there is a child."""

    def __init__(self, model: str, make_child: MakeChild, nursery: trio.Nursery) -> None:
        self.model = model
        self.state = KeeperState.UNLOADED
        self.child: Child | None = None
        """The child that was ready last, until it is gone."""

        self.last_failure: LlamasupError | None = None
        self.loads = 0
        self._make_child = make_child
        self._nursery = nursery
        self._load: _Load | None = None

    async def ready(self) -> Child:
        """A child that is ready, started if there is none.

        Raises ModelUnavailable if it cannot be started. Cancelled, the load goes on.
        """
        while True:
            if self.child is not None and self.child.state is ChildState.READY:
                return self.child
            load = self._load or self._begin()
            if load.settled.is_set():
                await load.over.wait()
                continue
            await load.settled.wait()
            if load.failure is not None:
                raise load.failure

    def _begin(self) -> _Load:
        self._load = load = _Load()
        self._move(KeeperState.LOADING)
        self.loads += 1
        self._nursery.start_soon(self._keep, load, name=f"keeper of {self.model}")
        return load

    async def _keep(self, load: _Load) -> None:
        """One incarnation, from its plan to its end."""
        started = trio.current_time()
        try:
            child = await self._make_child()
            async with trio.open_nursery() as nursery:
                await nursery.start(child.run)
                self._is_ready(child, load, trio.current_time() - started)
            # Only now, when it is gone, is there room for the next.
            log.info("%s is gone", child)
        except* ModelUnavailable as errors:
            self._has_failed(errors, load)
        finally:
            self._has_ended(load)

    def _is_ready(self, child: Child, load: _Load, seconds: float) -> None:
        self._move(KeeperState.READY)
        self.child = child
        self.last_failure = None
        load.settled.set()
        log.info("%s is ready after %.2f s", child, seconds)

    def _has_failed(self, errors: BaseExceptionGroup[ModelUnavailable], load: _Load) -> None:
        cause: BaseException = errors
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        message = f'model "{self.model}" cannot be started: {cause}'
        self.last_failure = load.failure = ModelUnavailable(message)
        log.error("%s", message)

    def _has_ended(self, load: _Load) -> None:
        self.child = self._load = None
        self._move(KeeperState.UNLOADED if load.failure is None else KeeperState.FAILED)
        load.settled.set()
        load.over.set()

    def _move(self, state: KeeperState) -> None:
        self.state = moved(self.state, state)
