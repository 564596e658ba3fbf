"""What is said of instances elsewhere: their states, and no secrets."""

from __future__ import annotations

import json

import pytest
import trio

from llamasup.config.schema import EndpointSettings
from llamasup.control import elsewhere
from llamasup.endpoints.answers import Offer
from llamasup.endpoints.balance import Where
from llamasup.endpoints.endpoint import Endpoint
from llamasup.endpoints.instance import Instance
from llamasup.events import Journal
from llamasup.states import KeeperState

SETTINGS = EndpointSettings("box", "http://box:1", key="secret", headers={"X": "secret"})


def instance(sign: str, where: Where = Where.LOADED) -> Instance:
    one = Instance("box", SETTINGS, [])
    one.offers = {"m": Offer("m", where=where)}
    match sign:
        case "healthy":
            one.health.answered(0)
        case "loading":
            one.health.loading(0)
        case "away":
            one.health.unreachable("refused", 0)
    return one


@pytest.mark.parametrize(
    ("instances", "status"),
    [
        ([instance("healthy")], KeeperState.READY),
        ([instance("healthy", Where.FITS)], KeeperState.UNLOADED),
        ([instance("away"), instance("healthy")], KeeperState.READY),
        ([instance("away"), instance("loading")], KeeperState.LOADING),
        ([instance("away")], KeeperState.FAILED),
        ([instance("not asked")], KeeperState.LOADING),
    ],
)
def test_a_model_s_status_is_the_best_that_an_instance_has(
    instances: list[Instance], status: KeeperState
) -> None:
    assert elsewhere.standing("m", instances).state is status


async def test_an_endpoint_is_shown_without_its_secrets() -> None:
    await trio.lowlevel.checkpoint()
    endpoint = Endpoint(SETTINGS, "me", Journal(), lambda: None, lambda: None)
    endpoint.instances.append(instance("away"))
    shown = elsewhere.endpoint(endpoint)
    assert shown["instances"][0]["condition"] == "unreachable"
    assert shown["instances"][0]["why"] == "refused"
    assert "secret" not in json.dumps(shown)
