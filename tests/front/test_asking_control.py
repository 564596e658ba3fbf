"""Control is told who asks, whatever clients say about themselves, and has to answer in time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import trio

from llamasup.control.catalogue import Catalogue
from tests.harness import running

Fake = Callable[..., Mapping[str, object]]


async def test_a_control_that_hangs_is_not_waited_for_without_end(
    faking: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(catalogue: Catalogue, key: object, for_anthropic: bool) -> object:
        await trio.sleep_forever()
        return None

    monkeypatch.setattr(Catalogue, "all", hang)
    monkeypatch.setattr("llamasup.front.asking_control._PATIENCE", 0.3)
    async with running(faking()) as llamasup:
        reply = await llamasup.ask("GET", "/v1/models")
        assert (reply.status, reply.error["code"]) == (504, "control_timeout")
        assert (await llamasup.ask("GET", "/health")).status == 200


async def test_a_client_cannot_pose_as_others_to_guess_the_admin_key(faking: Fake) -> None:
    async with running({**faking(), "server.admin_key": "right"}) as llamasup:
        for tried in range(6):
            posing = {"X-Llamasup-Client": f"10.0.0.{tried}", "Authorization": "Bearer wrong"}
            reply = await llamasup.ask("POST", "/models/unload", {"model": "fake"}, posing)
            assert reply.status == (401 if tried < 5 else 429)
