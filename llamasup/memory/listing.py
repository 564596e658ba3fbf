"""The devices that an engine lists, and which of the vendors' cards they are. Pure.

Only the devices that the engine lists count, with its names, order and totals. Environment
variables renumber them, arguments add some, and backends show the same card under different names;
all that is in the engine's answer already (`engine.devices` reads it). A vendor's tool is only a
cheaper way to learn how much is free now, and is used only if the card is certainly the same. For
all other devices the engine itself is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from attrs import evolve, frozen

from llamasup.memory.cards import Card, Maker
from llamasup.memory.readings import Device, Kind

_MIB: Final = 1 << 20
_ANOTHER: Final = " #"

_SHOWN_BY_CARD: Final = 0.94
"""Programs see at least this part of a card's memory. A slice of a card (MIG) has less."""

_LIKE_THE_HOSTS: Final = 0.9
_RENUMBERING: Final = {
    "CUDA": ("CUDA_VISIBLE_DEVICES",),
    "ROCm": ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"),
}


@frozen
class Listing:
    """The question to an engine which devices it has: all that the answer depends on."""

    engine: str
    """The program and its version."""

    command: tuple[str, ...]
    surroundings: tuple[tuple[str, str], ...]
    """The environment variables of the process."""

    devices_in: Callable[[str], list[Device] | None]
    """Reads the answer; None if the engine printed something else."""

    owner: object = None
    """Whose engine it is: None for the one that most models share."""

    servers: tuple[str, ...] = ()
    """RPC servers that the engine connects to. Each serves one engine at a time, and all others
    have to wait."""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the process."""
        return dict(self.surroundings)

    def is_of_one_engine_with(self, other: Listing) -> bool:
        """Do both questions give devices the same names, except for those that arguments add?"""
        return (self.engine, self.surroundings) == (other.engine, other.surroundings)


def place_of(address: str, number: int) -> str:
    """The identity of a device of an RPC server: the server's address, and the device's number."""
    return address if number == 1 else f"{address}{_ANOTHER}{number}"


def server_of(budget: str) -> str:
    """The RPC server behind a budget, if there is one."""
    return budget.partition(_ANOTHER)[0]


def is_remote(device: Device) -> bool:
    """Is the device on an RPC server, which may be another machine?"""
    return bool(device.place)


def refined(
    devices: Sequence[Device],
    cards: Sequence[Card],
    environment: Mapping[str, str],
    host_total: int,
) -> tuple[list[Device], bool]:
    """The devices, with what is free according to their cards; those that use the host's memory are
    marked.

    The second value: is there a device of which only the engine knows what is free?
    """
    known = {device.name: card for device, card in _matches(devices, cards, environment)}
    result, is_old = [], False
    for device in devices:
        card = known.get(device.name)
        if shares_the_hosts(device, cards, host_total):
            result.append(evolve(device, unified=True))
        elif card is not None:
            result.append(evolve(device, free=min(card.free, device.total)))
        else:
            is_old = True
            result.append(device)
    return result, is_old


def under_common_names(
    devices: Sequence[Device],
    environment: Mapping[str, str],
    common: Sequence[Device],
    common_environment: Mapping[str, str],
    cards: Sequence[Card],
) -> list[Device]:
    """The devices of a model's own engine, with the budgets that the `common` engine's names give.

    Its CUDA0 may be the common CUDA1, if its environment hides the first card; or Vulkan0, if it is
    another build. Devices are the same if they are certainly the same card, or else, if only one
    has this label and size, or the same name with it.
    """
    budgets = {card: device.budget for device, card in _matches(common, cards, common_environment)}
    known = {device.name: card for device, card in _matches(devices, cards, environment)}

    def budget(device: Device) -> str:
        if (card := known.get(device.name)) in budgets:
            return budgets[card]
        alike = [other for other in common if _is_alike(device, other)]
        same = [other for other in alike if other.name == device.name] or alike
        if len(same) == 1:
            return same[0].budget
        is_taken = any(other.name == device.name for other in common)
        return f"{device.name} of another engine" if is_taken else device.name

    return [
        device if is_remote(device) else evolve(device, common=budget(device)) for device in devices
    ]


def _is_alike(one: Device, other: Device) -> bool:
    return one.label == other.label and abs(one.total - other.total) <= _MIB


def shares_the_hosts(device: Device, cards: Sequence[Card], host_total: int) -> bool:
    """Does the device use the host's memory?

    Apple's GPUs do, and so does a device that has exactly as much memory as the host, or more free
    than in total. If the vendor's tool knows no size, a device does that has about as much as the
    host; with less it may be a slice of a card (MIG), whose size that tool does not know either.
    """
    if is_remote(device):
        return False
    if device.kind is Kind.APPLE:
        return device.label.startswith("Apple")
    if not host_total:
        return False
    by_maker = any(not card.own_memory and _same_label(device, card) for card in cards)
    return (
        abs(device.total - host_total) <= _MIB
        or device.free > device.total
        or (by_maker and host_total * _LIKE_THE_HOSTS < device.total < host_total / _LIKE_THE_HOSTS)
    )


def _matches(
    devices: Sequence[Device], cards: Sequence[Card], environment: Mapping[str, str]
) -> Iterator[tuple[Device, Card]]:
    """Each device that is certainly one of the cards, with its card. Cards that are alike are told
    apart by their UUIDs, or by their order if the operator has not chosen or renumbered them."""
    for backend in {_backend(device) for device in devices}:
        own = [d for d in devices if _backend(d) == backend and not is_remote(d)]
        chosen = next(
            (environment[name] for name in _RENUMBERING.get(backend, ()) if name in environment),
            None,
        )
        for device in own:
            alike = [card for card in cards if _may_be(device, card)]
            if chosen is not None and (card := _chosen(device, alike, cards, chosen, environment)):
                yield device, card
                continue
            rivals = [other for other in own if alike == [c for c in cards if _may_be(other, c)]]
            if len(alike) == 1 == len(rivals):
                yield device, alike[0]
            elif chosen is None and backend in _RENUMBERING and len(alike) == len(rivals):
                yield device, alike[rivals.index(device)]


def _chosen(
    device: Device,
    alike: Sequence[Card],
    cards: Sequence[Card],
    chosen: str,
    environment: Mapping[str, str],
) -> Card | None:
    """The card that is this device, by the operator's choice."""
    entries = [entry.strip() for entry in chosen.split(",")]
    place = int(device.name.removeprefix(_backend(device)) or 0)
    entry = entries[place] if place < len(entries) else ""
    if entry.isdecimal():
        # Numbers follow the bus only if that was set, or if no card is faster than another.
        along_the_bus = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
        if not along_the_bus and len({card.label for card in cards}) > 1:
            return None
        return next((card for card in alike if card.index == int(entry)), None)
    named = [card for card in alike if entry and card.uuid.startswith(entry)]
    return named[0] if len(named) == 1 else None


def _may_be(device: Device, card: Card) -> bool:
    return (
        card.own_memory
        and _same_label(device, card)
        and card.total * _SHOWN_BY_CARD <= device.total <= card.total
    )


def _same_label(device: Device, card: Card) -> bool:
    if card.maker is Maker.NVIDIA:
        return _plain(device.label) == _plain(card.label)
    return device.kind is Kind.AMD or "AMD" in device.label or "Radeon" in device.label


def _plain(label: str) -> str:
    # Older drivers leave the vendor's name out.
    return label.removeprefix("NVIDIA ").strip()


def _backend(device: Device) -> str:
    return device.name.rstrip("0123456789")
