"""What the listing and the status say of instances elsewhere, as documents of plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from llamasup.control.listing import Standing
from llamasup.endpoints.balance import Where
from llamasup.endpoints.endpoint import Endpoint
from llamasup.endpoints.health import Condition
from llamasup.endpoints.instance import Instance
from llamasup.states import KeeperState

_STATES: Final = {
    Condition.LOADING: KeeperState.LOADING,
    Condition.UNKNOWN: KeeperState.LOADING,
    Condition.UNREACHABLE: KeeperState.FAILED,
    Condition.REFUSING: KeeperState.FAILED,
}


def standing(model: str, instances: Sequence[Instance]) -> Standing:
    """How a model stands that instances have: as on the one where it stands best."""
    healthy = [i for i in instances if i.health.condition is Condition.HEALTHY]
    if any(i.offers[model].where is Where.LOADED for i in healthy):
        return Standing(KeeperState.READY)
    if any(i.offers[model].where is Where.LOADS for i in healthy):
        return Standing(KeeperState.LOADING)
    if healthy:
        return Standing(KeeperState.UNLOADED)
    if any(_STATES[i.health.condition] is KeeperState.LOADING for i in instances):
        return Standing(KeeperState.LOADING)
    why = "; ".join(f"{i.name} is {i.health.condition.value}: {i.health.why}" for i in instances)
    return Standing(KeeperState.FAILED, failure=why)


def endpoint(endpoint: Endpoint) -> dict[str, Any]:
    """What an operator wants to know of an endpoint. Its key and headers are left out."""
    return {
        "name": endpoint.settings.name,
        "url": endpoint.settings.url,
        "trouble": endpoint.trouble or None,
        "instances": [_instance(instance) for instance in endpoint.instances],
    }


def _instance(instance: Instance) -> dict[str, Any]:
    return {
        "name": instance.name,
        "addresses": [str(address) for address in instance.addresses],
        "condition": instance.health.condition.value,
        "why": instance.health.why or None,
        "llamasup": instance.llamasup or None,
        "slots": instance.slots,
        "in_flight": instance.in_flight,
        "models": sorted(instance.offers),
    }
