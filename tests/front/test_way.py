"""The head of an answer says which way its request has come, as far as that is known."""

from __future__ import annotations

from attrs import define

from llamasup.front.way import Way
from llamasup.http.requests import Request
from llamasup.upstream import Signature, in_header


@define
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def asked(target: bytes = b"/v1/chat/completions") -> Request:
    return Request(b"POST", target, [], keep_alive=True, http_1_0=False, id=b"the-id")


def told(way: Way) -> dict[str, str]:
    lines = b"\r\n".join(way.lines()).decode().split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def test_a_request_that_is_for_no_model_has_an_id_and_an_age() -> None:
    clock = Clock()
    way = Way(asked(), clock)
    clock.now += 0.0126
    assert told(way) == {"X-Llamasup-Request-Id": "the-id", "X-Llamasup-Time-Ms": "13"}


def test_a_request_that_waits_tells_its_model_and_how_long_it_has_waited() -> None:
    clock = Clock()
    way = Way(asked(), clock)
    way.model = "qwen3"
    clock.now += 1
    way.waits()
    clock.now += 2
    assert told(way) == {
        "X-Llamasup-Request-Id": "the-id",
        "X-Llamasup-Time-Ms": "3000",
        "X-Llamasup-Queue-Ms": "2000",
        "X-Llamasup-Replays": "0",
        "X-Llamasup-Model": "qwen3",
    }


def test_an_answer_tells_who_gave_it_and_all_waits_are_added_up() -> None:
    clock = Clock()
    way = Way(asked(), clock)
    way.model = "qwen3"
    for number in range(2):
        way.replays = number
        way.waits()
        assert "X-Llamasup-Instance" not in told(way)
        clock.now += 2
        way.goes_on(Signature.of("qwen3", f"qwen3[{number}]"))
        clock.now += 1
    answer = told(way)
    assert answer["X-Llamasup-Time-Ms"] == "6000"
    assert answer["X-Llamasup-Queue-Ms"] == "4000"
    assert answer["X-Llamasup-Replays"] == "1"
    assert answer["X-Llamasup-Model"] == "qwen3"
    assert answer["X-Llamasup-Instance"] == "qwen3[1]"
    assert answer["Via"].startswith("1.1 llamasup (")


def test_under_a_prefix_of_ollas_the_names_that_its_clients_know_are_there_too() -> None:
    way = Way(asked(b"/olla/llamacpp/v1/chat/completions"), Clock())
    way.model = "qwen3"
    assert {name: value for name, value in told(way).items() if "Olla" in name} == {
        "X-Olla-Request-Id": "the-id",
        "X-Olla-Response-Time": "0",
        "X-Olla-Model": "qwen3",
    }
    way.goes_on(Signature.of("qwen3", "qwen3[7]"))
    answer = told(way)
    assert answer["X-Olla-Model"] == answer["X-Llamasup-Model"]
    assert answer["X-Olla-Endpoint"] == answer["X-Llamasup-Instance"] == "qwen3[7]"
    assert answer["X-Olla-Backend-Type"] == "llamacpp"
    assert not [name for name in told(Way(asked(b"/ollama/x"), Clock())) if "Olla" in name]


def test_no_name_of_a_file_breaks_a_header() -> None:
    assert in_header('a b/c:"d" [1]') == b'a b/c:"d" [1]'
    assert in_header("a\r\nX: 1") == b"a%0D%0AX: 1"
    assert in_header("caf\udce9 100%") == b"caf%E9 100%25"
    assert in_header("模") == b"%E6%A8%A1"
