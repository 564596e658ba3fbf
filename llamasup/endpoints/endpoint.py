"""One entry of `[[endpoints]]`: its name is looked up, and each instance behind it is asked how it
is."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable
from typing import Final

import trio

from llamasup import tending, threads
from llamasup.config.addresses import Address
from llamasup.config.schema import EndpointSettings
from llamasup.config.urls import parse_url
from llamasup.endpoints import names
from llamasup.endpoints.health import Condition
from llamasup.endpoints.instance import Instance
from llamasup.endpoints.probe import look
from llamasup.events import InstanceChanged, Journal, NameLost
from llamasup.http import tls

_PAUSE: Final = 1.0
"""Seconds at least between two looks at a name."""

_PATIENCE: Final = 10.0
"""Seconds for which the disk with the authorities' certificates is waited for."""

_PAUSE_OF_NEWS: Final = 0.05
"""Seconds between two questions to a llamasup, which answers when it has something to tell."""


class Endpoint:
    """The instances of one entry. `run` is its task; instances that go keep their requests."""

    def __init__(
        self,
        settings: EndpointSettings,
        ourselves: str,
        journal: Journal,
        on_heard: Callable[[], None],
        on_room: Callable[[], None],
    ) -> None:
        """`on_heard` is called when it may have other models, `on_room` when it may have more or
        less room."""
        self.settings = settings
        self._url = parse_url(settings.url)
        self.instances: list[Instance] = []
        self.trouble = ""
        """Why its name cannot be looked up."""

        self.began = trio.current_time()
        self._ourselves = ourselves
        self._journal = journal
        self._on_heard = on_heard
        self._on_room = on_room
        self._tasks: dict[Instance, trio.CancelScope] = {}
        self._nap = trio.CancelScope()
        self._trust: ssl.SSLContext | None = None

    @property
    def may_have_more(self) -> bool:
        """May it have models that nobody knows yet, because it only begins, as we do?"""
        if trio.current_time() > self.began + self.settings.cold_start_timeout:
            return False
        heard = {instance.was_known for instance in self.instances}
        refusing = {instance.health.condition is Condition.REFUSING for instance in self.instances}
        return not self.instances or (True not in heard and refusing != {True})

    def follow(self, settings: EndpointSettings) -> None:
        """Use these settings from now on. Their URL is the same."""
        self.settings = settings
        for instance in self.instances:
            instance.settings = settings
            instance.was_known = False  # its models may be filtered and named otherwise
            instance.ask_again()

    async def run(self) -> None:
        """Follow the name and the instances, until cancelled. It can begin again."""
        self._tasks.clear()
        self.instances.clear()
        await self._learn_whom_to_trust()
        async with trio.open_nursery() as nursery:
            while True:
                lifetime = await self._look_up(nursery)
                await trio.sleep(_PAUSE)
                with trio.move_on_after(lifetime - _PAUSE) as self._nap:
                    await trio.sleep_forever()

    async def _learn_whom_to_trust(self) -> None:
        """Read the authorities' certificates, as soon as they can be read."""
        file = self.settings.ca_file
        while self._url.tls and self._trust is None:
            try:
                self._trust = await threads.run(
                    tls.trusting, None if file == "none" else file, patience=_PATIENCE
                )
            except OSError as error:
                self._note_trouble(f"{file} cannot be used: {error.strerror or error}")
                await trio.sleep(_PAUSE)

    async def _look_up(self, nursery: trio.Nursery) -> float:
        """Note what the name means now; for how many seconds that counts."""
        try:
            found = await names.look_up(self._url)
        except OSError as error:
            self._note_trouble(error.strerror or str(error))
            return _PAUSE
        self.trouble = ""
        if self._url.each:
            self._note_each(found.instances, nursery)
        elif self.instances:
            self.instances[0].addresses = tuple(found.instances[0])
        else:
            self._begin(self.settings.name, found.instances[0], nursery)
        self._on_heard()
        return found.lifetime

    def _note_trouble(self, why: str) -> None:
        if why != self.trouble:
            self._journal.tell(NameLost(self.settings.name, why))
        self.trouble = why
        self._on_heard()

    def _note_each(self, found: names.Instances, nursery: trio.Nursery) -> None:
        known = {instance.addresses for instance in self.instances}
        for addresses in found:
            if addresses not in known:
                self._begin(f"{self.settings.name}@{addresses[0]}", addresses, nursery)
        for instance in list(self.instances):
            if instance.addresses not in found:
                self.instances.remove(instance)
                self._tasks.pop(instance).cancel()
                self._journal.tell(InstanceChanged(instance.name, "gone", "its name names others"))

    def _begin(self, name: str, addresses: tuple[Address, ...], nursery: trio.Nursery) -> None:
        instance = Instance(name, self.settings, addresses, self._changed, self._trust)
        # Until it tells its own: a name may have nothing but new addresses from one look to the
        # next, and requests for its models should wait for them.
        instance.offers = next((one.offers for one in self.instances if one.offers), {})
        self.instances.append(instance)
        self._tasks[instance] = scope = trio.CancelScope()
        task = f"questions to {name}"
        nursery.start_soon(tending.again, task, self._ask, instance, scope, name=task)

    async def _ask(self, instance: Instance, scope: trio.CancelScope) -> None:
        """Ask the instance how it is, again and again."""
        with scope:
            while True:
                is_news = await look(instance, self._ourselves, trio.current_time())
                self._on_heard()
                self._changed(instance, is_news)
                with trio.move_on_after(_pause(instance)) as instance.nap:
                    await trio.sleep_forever()

    def _changed(self, instance: Instance, is_news: bool) -> None:
        health = instance.health
        if is_news:
            told = InstanceChanged(instance.name, health.condition.value, health.why)
            self._journal.tell(told)
            if health.condition is Condition.UNREACHABLE:
                self._nap.cancel()  # its name may name another one by now
        self._on_room()


def _pause(instance: Instance) -> float:
    now, health = trio.current_time(), instance.health
    pause = health.pause(random.random())
    if instance.llamasup and health.condition.is_good:
        pause = _PAUSE_OF_NEWS
    return min(pause, max(0.0, health.opens_at(now) - now))
