"""Instances elsewhere without a server behind them, for what waits in front of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamasup.config.in_effect import InEffect
from llamasup.config.load import load
from llamasup.config.schema import EndpointSettings
from llamasup.endpoints.answers import Offer
from llamasup.endpoints.instance import Instance
from llamasup.pool.outside import Errand, Outside
from llamasup.pool.queue import Client
from llamasup.pool.trail import Trail
from llamasup.pool.work import Work


class StillFleet:
    """As much of a fleet as is needed before one."""

    def __init__(self) -> None:
        self.ourselves = "llamasup-here"
        self.models: dict[str, list[Instance]] = {}
        self.on_room = lambda: None

    def add(self, name: str, model: str = "m", slots: int = 1, **entry: Any) -> Instance:
        """A healthy instance with this model."""
        settings = EndpointSettings(name, f"http://{name}", **entry)
        instance = Instance(name, settings, [], lambda *_: self.on_room())
        instance.offers, instance.slots = {model: Offer(model)}, slots
        instance.health.answered(0)
        self.models.setdefault(model, []).append(instance)
        return instance


def outside_of(fleet: StillFleet, **config: object) -> Outside:
    return Outside(fleet, InEffect(load(None, flags=_dotted(config))))  # type: ignore[arg-type]


def _dotted(config: Mapping[str, object]) -> dict[str, object]:
    return {key.replace("__", "."): value for key, value in config.items()}


def errand(
    model: str = "m",
    work: Work = Work.GENERATE,
    client: str = "",
    prefix: bytes = b"",
    tried: str = "",
) -> Errand:
    return Errand(model, work, lambda: Client(client), 0, lambda: prefix, Trail(set(tried)))
