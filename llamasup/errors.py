"""Every error that a client or an operator can meet: what is at fault, its status and its code.

A client sees `status` and the JSON of `body()`; an operator sees `str(error)`. Foreign exceptions
(OSError, h11, cattrs) are turned into one of these at one border each: connection, child, config.
"""

from __future__ import annotations

from copy import copy
from typing import ClassVar, Self


class LlamasupError(Exception):
    """Something went wrong in a known way. `str(error)` says what, and what to do."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    retry_after: float | None = None
    """Seconds after which another try may succeed; None if none will, as long as nothing is
    changed. Where more is known than of all errors of a class, an error has a number of its own."""

    def again(self) -> Self:
        """A copy to raise again: the traceback of an error that was raised keeps much in memory."""
        return copy(self).with_traceback(None)


class ClientError(LlamasupError):
    """The request is at fault: sending it again unchanged would fail again."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_parameter"


class MalformedRequest(ClientError):
    """Not HTTP as llamasup accepts it. The connection is closed, because nothing tells where the
    next request begins."""

    code = "malformed_request"


class RequestTimeout(MalformedRequest):
    """The client was too slow to send its request."""

    status = 408
    code = "request_timeout"
    retry_after = 1.0


class BodyTooLarge(MalformedRequest):
    """The body is over `server.max_body`."""

    status = 413
    code = "body_too_large"


class TooLargeForEngine(ClientError):
    """The engine had no memory to take in a body that `server.max_body` allows."""

    status = 413
    code = "body_too_large"


class HeadTooLarge(MalformedRequest):
    """Request line and headers are over `server.max_head`."""

    status = 431
    code = "headers_too_large"


class ExpectationFailed(ClientError):
    """An `Expect` other than 100-continue."""

    status = 417
    code = "expectation_failed"


class NotImplementedByProxy(MalformedRequest):
    """A transfer coding that llamasup does not know."""

    status = 501
    code = "not_implemented"


class RouteNotFound(ClientError):
    """No such path."""

    status = 404
    code = "not_found"


class NotOffered(ClientError):
    """What Ollama does at this path, and llamasup does in another way."""

    status = 501
    code = "not_offered"


class MethodNotAllowed(ClientError):
    """The path is right, the method is not."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


class Unauthorized(ClientError):
    """The operator's key is needed, and the request has a wrong one, or none."""

    status = 401
    code = "unauthorized"


class InvalidKey(Unauthorized):
    """Clients need a key here, and the request has none, or one that is not valid (any more)."""

    code = "invalid_api_key"


class TooManyTries(ClientError):
    """One client sent too many wrong keys: it has to wait, even with the right one."""

    status = 429
    code = "too_many_tries"


class Forbidden(ClientError):
    """This client may not do this, or not in this way."""

    status = 403
    code = "forbidden"


class ModelForbidden(Forbidden):
    """The key of this request is not meant for this model."""

    code = "model_not_allowed"


class RateLimited(LlamasupError):
    """The key has used up what it may use in a minute, or at once."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class ModelNotFound(ClientError):
    """The request names a model that does not exist."""

    status = 404
    code = "model_not_found"


class ModelNotNamed(ClientError):
    """The request names no model, and there are several."""


class ModelUnfit(ClientError):
    """The model is not made for what the request asks of it."""

    code = "model_unfit"


class RequestKillsEngine(ClientError):
    """This request ended the engine, and did so again when it was tried alone."""

    status = 422
    code = "request_kills_engine"


class TaskFell(LlamasupError):
    """The task that worked on this failed; the log says why. The request may be sent again."""

    retry_after = 1.0


class Shortage(LlamasupError):
    """llamasup lacks a thread, a descriptor or the like to answer this. That is temporary."""

    status = 503
    code = "shortage"
    retry_after = 5.0


class ModelUnavailable(LlamasupError):
    """The model's engine could not be started, in the engine's own words."""

    status = 503
    code = "model_unavailable"


class ModelFileMissing(ModelUnavailable):
    """A file of the model is not there, or cannot be opened."""


class ModelNotLoaded(ModelUnavailable):
    """The request only looks at a child, there is none, and a look loads none."""

    code = "model_not_loaded"


class EndpointsAway(ModelUnavailable):
    """No instance elsewhere that has the model can be used, and the request waited for long."""

    code = "endpoint_unavailable"


class LoopDetected(LlamasupError):
    """The request came from this llamasup, over others that know it as an endpoint."""

    status = 508
    code = "loop_detected"


class ModelMoved(ModelUnavailable):
    """The llamasup in front expected the model to be loaded here, or to fit; that has changed."""

    code = "model_moved"
    WORDS: ClassVar[str] = "is not here as expected"
    """By these words the llamasup in front knows the error."""

    @classmethod
    def of(cls, model: str, expected: bytes) -> ModelMoved:
        """For a model of which this was expected."""
        return cls(f'"{model}" {cls.WORDS} ({expected.decode("latin-1")})')


class OutOfMemory(ModelUnavailable):
    """Memory ran out, even on the last rung."""

    code = "out_of_memory"


class EngineUnusable(ModelUnavailable):
    """The engine program is missing or cannot be run, in its own words."""

    code = "engine_unusable"


class RemoteUnavailable(ModelUnavailable):
    """An RPC server does not answer, and the model does not fit without its devices."""

    code = "remote_unavailable"


class NotAdmitted(ModelUnavailable):
    """Other models hold the memory that the model needs, and will not be unloaded for it."""

    code = "not_admitted"
    retry_after: float | None = 5.0


class NoRoom(NotAdmitted):
    """The model needs more memory than it can ever get."""

    status = 507
    code = "insufficient_memory"
    retry_after = None


class QueueFull(LlamasupError):
    """The model's queue is full (`pool.max_queue`)."""

    status = 429
    code = "queue_full"
    retry_after = 5.0


class SlotsExhausted(QueueFull):
    """The same, for clients that know it by this name (`pool.queue_full_status` is 503)."""

    status = 503
    code = "slots_exhausted"


class ControlTimeout(LlamasupError):
    """llamasup itself took too long to answer a question about itself."""

    status = 504
    code = "control_timeout"
    retry_after = 5.0


class QueueTimeout(LlamasupError):
    """The request waited for `pool.queue_timeout`, and its turn did not come."""

    status = 504
    code = "queue_timeout"
    retry_after = 5.0


class ChildLost(LlamasupError):
    """The child died or fell silent before it answered."""

    status = 502
    code = "engine_lost"
    retry_after = 1.0


class NotAnsweredHere(ChildLost):
    """An instance elsewhere sent the request away, and another one may answer it."""


class EngineFailed(LlamasupError):
    """A stream had begun, and the engine then answered with an error, or not with a stream."""

    status = 502
    code = "engine_failed"
    retry_after = 1.0


class ShuttingDown(LlamasupError):
    """llamasup is stopping and starts nothing new."""

    status = 503
    code = "shutting_down"
    retry_after = 5.0


class OperatorError(LlamasupError):
    """The configuration or the machine is at fault; the message says what to change."""
