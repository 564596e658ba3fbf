"""What each path needs; and what is not listed is for operators."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamasup.access.rights import Need, is_from_here, need_of_engine, need_of_page
from llamasup.front.table import TABLE, Page


@pytest.mark.parametrize(
    ("path", "need"),
    [
        (b"/health", Need.NOTHING),
        (b"/livez", Need.NOTHING),
        (b"/openapi.json", Need.NOTHING),
        (b"/readyz", Need.NOTHING),
        (b"/models", Need.KEY),
        (b"/v1/models", Need.KEY),
        (b"/v1/models/qwen/3", Need.KEY),
        (b"/", Need.NOTHING),
        (b"/api/tags", Need.KEY),
        (b"/api/pull", Need.KEY),
        (b"/models/load", Need.OPERATOR),
        (b"/models/unload", Need.OPERATOR),
        (b"/models/sse", Need.KEY),
        (b"/modelFits", Need.OPERATOR),
        (b"/api/status", Need.OPERATOR),
        (b"/config", Need.OPERATOR),
        (b"/what/comes/later", Need.OPERATOR),
    ],
)
def test_a_page_needs_no_more_and_no_less(path: bytes, need: Need) -> None:
    assert need_of_page(path) is need


@pytest.mark.parametrize(
    ("method", "path", "need"),
    [
        (b"POST", b"/v1/chat/completions", Need.KEY),
        (b"GET", b"/props", Need.KEY),
        (b"GET", b"/lora-adapters", Need.KEY),
        (b"POST", b"/props", Need.OPERATOR),
        (b"POST", b"/lora-adapters", Need.OPERATOR),
        (b"POST", b"/slots/3", Need.OPERATOR),
        (b"GET", b"/slots", Need.OPERATOR),
        (b"HEAD", b"/metrics", Need.OPERATOR),
        (b"GET", b"/%73lot%73", Need.OPERATOR),
        (b"GET", b"/slots/", Need.OPERATOR),
        (b"GET", b"/prefix/slots", Need.OPERATOR),
        (b"POST", b"/slots%2f0", Need.OPERATOR),
        (b"GET", b"/%u0073lots", Need.OPERATOR),
        (b"POST", b"/%u0070rop%73", Need.OPERATOR),
        (b"GET", b"/%25u0073lots", Need.KEY),
        (b"GET", b"/slotsx", Need.KEY),
        (b"GET", b"/index.html", Need.KEY),
    ],
)
def test_what_shows_or_changes_something_of_others_is_for_operators(
    method: bytes, path: bytes, need: Need
) -> None:
    assert need_of_engine(method, path) is need


@pytest.mark.parametrize("peer", ["unix", "127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_known(peer: str) -> None:
    assert is_from_here(peer)


@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "2001:db8::1"])
def test_another_machine_is_not_this_one(peer: str) -> None:
    assert not is_from_here(peer)


@given(st.ip_addresses())
def test_every_address_is_either(address: object) -> None:
    assert is_from_here(str(address)) in (True, False)


def test_every_page_of_the_table_needs_what_it_should() -> None:
    """A new page is for operators until somebody decides otherwise, here too."""
    needs: dict[Need, set[str]] = {need: set() for need in Need}
    for route in TABLE:
        if isinstance(route.goal, Page):
            needs[need_of_page(route.path.replace(b"{model}", b"x"))].add(route.goal.value)
    assert needs[Need.NOTHING] >= {"health", "live", "ready", "openapi"}
    assert needs[Need.KEY] >= {"models", "model", "changes"}
    assert needs[Need.OPERATOR] >= {"load", "unload", "status", "config", "new config"}
    assert not needs[Need.OPERATOR] & (needs[Need.NOTHING] | needs[Need.KEY])
