"""All instances elsewhere, and the models that they have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from secrets import token_hex

import trio

from llamasup import tending
from llamasup.config.schema import EndpointSettings
from llamasup.endpoints.endpoint import Endpoint
from llamasup.endpoints.instance import Instance
from llamasup.events import Journal


class Fleet:
    """The endpoints of the configuration. Each has a task in `nursery`."""

    def __init__(self, journal: Journal, nursery: trio.Nursery) -> None:
        self.ourselves = f"llamasup-{token_hex(6)}"
        """Our name among llamasups, by which a request that goes in a circle is known."""

        self.on_room: Callable[[], None] = lambda: None
        """Called when an instance may have more or less room."""

        self._journal = journal
        self._nursery = nursery
        self._endpoints: dict[str, Endpoint] = {}
        self._tasks: dict[str, trio.CancelScope] = {}
        self._models: dict[str, list[Instance]] = {}
        self._asked_for: dict[str, str] = {}
        self._names: list[object] = []
        self._changed = trio.Event()

    def follow(self, entries: Sequence[EndpointSettings]) -> None:
        """Use these endpoints from now on, and no others. Requests that instances have go on."""
        wanted = {entry.name: entry for entry in entries}
        for name, endpoint in list(self._endpoints.items()):
            entry = wanted.get(name)
            if entry is None or entry.url != endpoint.settings.url:
                self._tasks.pop(name).cancel()
                del self._endpoints[name]
            elif entry != endpoint.settings:
                endpoint.follow(entry)
        for name, entry in wanted.items():
            if name not in self._endpoints:
                self._begin(entry)
        in_order = {name: self._endpoints[name] for name in wanted}
        self._endpoints = in_order
        self._note_heard()

    def _begin(self, entry: EndpointSettings) -> None:
        endpoint = Endpoint(
            entry, self.ourselves, self._journal, self._note_heard, lambda: self.on_room()
        )
        self._endpoints[entry.name] = endpoint
        self._tasks[entry.name] = scope = trio.CancelScope()

        async def run() -> None:
            with scope:
                await endpoint.run()

        self._nursery.start_soon(tending.again, f"endpoint {entry.name}", run)

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """All endpoints, in the order of the configuration."""
        return list(self._endpoints.values())

    @property
    def instances(self) -> Iterator[Instance]:
        """All instances, in that order."""
        for endpoint in self._endpoints.values():
            yield from endpoint.instances

    @property
    def models(self) -> Mapping[str, Sequence[Instance]]:
        """The instances that have a model, for every model that one of them has."""
        return self._models

    def find(self, asked: str) -> str | None:
        """The model that is asked for by this name, in any case, with `.gguf` or without."""
        folded = asked.casefold()
        return self._asked_for.get(folded) or self._asked_for.get(folded.removesuffix(".gguf"))

    async def await_model(self, asked: str) -> str | None:
        """The same; but if an endpoint that may have it only begins, wait for it. "" means any.

        That takes its `cold_start_timeout` at most. If it is cancelled, nothing remains.
        """
        while True:
            found = self.find(asked) if asked else next(iter(self._models), None)
            until = 0.0 if found else self._may_come_until(asked)
            if not until:
                return found
            with trio.move_on_at(until):
                await self._changed.wait()

    def _may_come_until(self, asked: str) -> float:
        return max(
            (
                endpoint.began + endpoint.settings.cold_start_timeout
                for endpoint in self._endpoints.values()
                if endpoint.may_have_more and _could_be_named(asked, endpoint.settings)
            ),
            default=0.0,
        )

    def _note_heard(self) -> None:
        names = [(instance, instance.offers.keys()) for instance in self.instances]
        if names != self._names:
            self._names = [(instance, set(keys)) for instance, keys in names]
            self._note_models()
        self._changed.set()
        self._changed = trio.Event()
        self.on_room()

    def _note_models(self) -> None:
        self._models = {}
        for instance in self.instances:
            for model in instance.offers:
                self._models.setdefault(model, []).append(instance)
        self._asked_for = {model.casefold(): model for model in reversed(self._models)}


def _could_be_named(asked: str, settings: EndpointSettings) -> bool:
    if not asked or asked in settings.rename.values():
        return True
    short = asked.removesuffix(".gguf")
    return any(fnmatchcase(name, p) for p in settings.models for name in (asked, short))
