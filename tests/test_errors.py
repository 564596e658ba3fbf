"""Every error has the status, the type and the code that clients know, and a body that says so."""

from __future__ import annotations

import inspect

import pytest

from llamasup import errors
from llamasup.apis.openai import OpenAI
from llamasup.errors import (
    BodyTooLarge,
    ChildLost,
    ClientError,
    ControlTimeout,
    EndpointsAway,
    EngineFailed,
    EngineUnusable,
    ExpectationFailed,
    Forbidden,
    HeadTooLarge,
    InvalidKey,
    LlamasupError,
    LoopDetected,
    MalformedRequest,
    MethodNotAllowed,
    ModelFileMissing,
    ModelForbidden,
    ModelMoved,
    ModelNotFound,
    ModelNotLoaded,
    ModelNotNamed,
    ModelUnavailable,
    ModelUnfit,
    NoRoom,
    NotAdmitted,
    NotAnsweredHere,
    NotImplementedByProxy,
    NotOffered,
    OperatorError,
    OutOfMemory,
    QueueFull,
    QueueTimeout,
    RateLimited,
    RemoteUnavailable,
    RequestKillsEngine,
    RequestTimeout,
    RouteNotFound,
    Shortage,
    ShuttingDown,
    SlotsExhausted,
    TaskFell,
    TooLargeForEngine,
    TooManyTries,
    Unauthorized,
)

THE_CLIENTS = "invalid_request_error"
OURS = "server_error"
KNOWN: dict[type[LlamasupError], tuple[int, str, str]] = {
    BodyTooLarge: (413, THE_CLIENTS, "body_too_large"),
    ModelFileMissing: (503, OURS, "model_unavailable"),
    ChildLost: (502, OURS, "engine_lost"),
    ClientError: (400, THE_CLIENTS, "invalid_parameter"),
    EngineFailed: (502, OURS, "engine_failed"),
    EngineUnusable: (503, OURS, "engine_unusable"),
    ExpectationFailed: (417, THE_CLIENTS, "expectation_failed"),
    Forbidden: (403, THE_CLIENTS, "forbidden"),
    HeadTooLarge: (431, THE_CLIENTS, "headers_too_large"),
    LlamasupError: (500, OURS, "internal_error"),
    MalformedRequest: (400, THE_CLIENTS, "malformed_request"),
    MethodNotAllowed: (405, THE_CLIENTS, "method_not_allowed"),
    ModelNotFound: (404, THE_CLIENTS, "model_not_found"),
    ModelNotNamed: (400, THE_CLIENTS, "invalid_parameter"),
    ModelNotLoaded: (503, OURS, "model_not_loaded"),
    ModelUnavailable: (503, OURS, "model_unavailable"),
    NotAdmitted: (503, OURS, "not_admitted"),
    NoRoom: (507, OURS, "insufficient_memory"),
    NotImplementedByProxy: (501, THE_CLIENTS, "not_implemented"),
    NotOffered: (501, THE_CLIENTS, "not_offered"),
    OperatorError: (500, OURS, "internal_error"),
    OutOfMemory: (503, OURS, "out_of_memory"),
    Shortage: (503, OURS, "shortage"),
    TaskFell: (500, OURS, "internal_error"),
    QueueFull: (429, OURS, "queue_full"),
    QueueTimeout: (504, OURS, "queue_timeout"),
    RequestKillsEngine: (422, THE_CLIENTS, "request_kills_engine"),
    RequestTimeout: (408, THE_CLIENTS, "request_timeout"),
    RouteNotFound: (404, THE_CLIENTS, "not_found"),
    ShuttingDown: (503, OURS, "shutting_down"),
    SlotsExhausted: (503, OURS, "slots_exhausted"),
    ControlTimeout: (504, OURS, "control_timeout"),
    TooManyTries: (429, THE_CLIENTS, "too_many_tries"),
    TooLargeForEngine: (413, THE_CLIENTS, "body_too_large"),
    Unauthorized: (401, THE_CLIENTS, "unauthorized"),
    LoopDetected: (508, OURS, "loop_detected"),
    ModelForbidden: (403, THE_CLIENTS, "model_not_allowed"),
    EndpointsAway: (503, OURS, "endpoint_unavailable"),
    InvalidKey: (401, THE_CLIENTS, "invalid_api_key"),
    RemoteUnavailable: (503, OURS, "remote_unavailable"),
    ModelUnfit: (400, THE_CLIENTS, "model_unfit"),
    RateLimited: (429, "rate_limit_error", "rate_limit_exceeded"),
    NotAnsweredHere: (502, OURS, "engine_lost"),
    ModelMoved: (503, OURS, "model_moved"),
}


def made(error: type[LlamasupError], message: str) -> LlamasupError:
    return error(message, allowed="GET") if error is MethodNotAllowed else error(message)


def test_every_error_is_known_here() -> None:
    classes = {found for _, found in inspect.getmembers(errors, inspect.isclass)}
    assert classes == KNOWN.keys()


@pytest.mark.parametrize("error", KNOWN)
def test_clients_are_told_in_the_form_of_the_openai_api(error: type[LlamasupError]) -> None:
    status, kind, code = KNOWN[error]
    failure = made(error, 'no "model"\nof that name ✗')
    assert failure.status == status
    assert OpenAI().error_body(failure) == {
        "error": {"message": 'no "model"\nof that name ✗', "type": kind, "code": code}
    }
    assert str(failure) == 'no "model"\nof that name ✗'


AGAIN = {
    **dict.fromkeys((RequestTimeout, TaskFell, ChildLost, NotAnsweredHere, EngineFailed), 1.0),
    **dict.fromkeys((Shortage, NotAdmitted, QueueFull, SlotsExhausted), 5.0),
    **dict.fromkeys((ControlTimeout, QueueTimeout, ShuttingDown), 5.0),
}
"""After how many seconds another try makes sense. For all others it does once something has
changed, or at a time that is known only where they are raised."""


@pytest.mark.parametrize("error", KNOWN)
def test_an_error_says_whether_another_try_makes_sense(error: type[LlamasupError]) -> None:
    failure = made(error, "x")
    assert failure.retry_after == AGAIN.get(error)
    failure.retry_after = 3.5
    assert made(error, "y").retry_after == AGAIN.get(error)


def test_a_client_learns_which_methods_are_allowed() -> None:
    assert MethodNotAllowed("not so", allowed="GET, HEAD").allowed == "GET, HEAD"
