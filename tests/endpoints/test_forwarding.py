"""A request goes to an instance under the model's name there, with the operator's key."""

from __future__ import annotations

import pytest

from llamasup.config.schema import EndpointSettings
from llamasup.endpoints.answers import Offer
from llamasup.endpoints.balance import Where
from llamasup.endpoints.forwarding import (
    head_there,
    refuse_circle,
    told_to_llamasup,
    with_name_there,
)
from llamasup.endpoints.instance import Instance
from llamasup.errors import LoopDetected
from llamasup.http.requests import Request


def request(body: bytes = b"", **headers: bytes) -> Request:
    named = [(name.encode(), value) for name, value in headers.items()]
    return Request(b"POST", b"/v1/completions", named, True, False, b"id", body)


def instance(theirs: str = "qwen3-8b") -> Instance:
    settings = EndpointSettings("lab", "http://lab:8080/llm", key="ours", headers={"X-Team": "ml"})
    there = Instance("lab", settings, ())
    there.offers = {"qwen3": Offer(theirs)}
    return there


def test_the_body_names_the_model_as_the_instance_does() -> None:
    asked = request(b'{"model":"qwen3","seed":1.0}')
    named = with_name_there(asked, "qwen3", instance())
    assert named.body == b'{"model":"qwen3-8b","seed":1.0}'
    assert with_name_there(asked, "qwen3", instance("qwen3")) is asked


def test_a_body_stays_as_it_is_where_no_name_is_read_or_given() -> None:
    there = instance()
    asked = request(b'{"prompt":"x"}')
    assert with_name_there(asked, "qwen3", there) is asked
    there.ignores_names = True
    asked = request(b'{"model":"qwen3"}')
    assert with_name_there(asked, "qwen3", there) is asked


def test_the_head_has_the_operators_key_and_none_of_the_clients() -> None:
    asked = request(authorization=b"Bearer theirs", via=b"1.1 proxy", accept=b"*/*")
    head = head_there(asked, b"/v1/completions", instance(), "llamasup-1", ())
    lines = head.split(b"\r\n")
    assert lines[:2] == [b"POST /llm/v1/completions HTTP/1.1", b"Host: lab:8080"]
    assert {b"Authorization: Bearer ours", b"X-Team: ml", b"accept: */*"} <= set(lines)
    assert b"Via: 1.1 proxy, 1.1 llamasup-1" in lines
    assert b"theirs" not in head


@pytest.mark.parametrize(("priority", "urgency"), [(-4, b"u=7"), (1, b"u=2"), (3, b"u=0")])
def test_a_llamasup_is_told_who_asks_how_urgent_it_is_and_what_we_believe(
    priority: int, urgency: bytes
) -> None:
    told = dict(told_to_llamasup("client", priority, Where.FITS))
    assert told[b"priority"] == urgency
    assert b"fits" in told.values()
    assert b"client" not in b"".join(told.values())


def test_what_is_usual_is_not_told() -> None:
    assert len(list(told_to_llamasup("client", 0, None))) == 1


def test_a_request_that_was_here_before_is_refused() -> None:
    with pytest.raises(LoopDetected):
        refuse_circle(request(via=b"1.1 llamasup-1, 1.1 llamasup-2"), "llamasup-1")
    refuse_circle(request(via=b"1.1 llamasup-2"), "llamasup-1")
    refuse_circle(request(), "llamasup-1")
