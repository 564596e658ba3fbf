"""How a request is put to an instance elsewhere. Pure.

It gets the name that the model has there, and the operator's key and headers instead of the
client's key. Llamasups tell each other more: who asks, how urgent it is, and where the model is
believed to be. By their names in `Via`, a request that goes in a circle is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Final

from attrs import evolve

from llamasup.access.headers import SECRETS
from llamasup.endpoints.balance import Where
from llamasup.endpoints.instance import Instance
from llamasup.endpoints.renamed import name_in, renamed
from llamasup.errors import ClientError, LoopDetected
from llamasup.http.requests import EXPECTS, ON_BEHALF, Request

_USUAL_URGENCY: Final = 3
_LEAST_URGENCY: Final = 7
_VIA: Final = b"via"


def refuse_circle(request: Request, ourselves: str) -> None:
    """Raise LoopDetected if the request has been at the llamasup of this name before."""
    ours = ourselves.encode()
    if any(name == _VIA and ours in value for name, value in request.headers):
        raise LoopDetected(
            "this request came here again over other llamasups: two of them have each other as"
            " an endpoint, and each believes that the other has the model"
        )


def with_name_there(request: Request, model: str, instance: Instance) -> Request:
    """The request with the name that the model has on the instance. Raises ClientError if its body
    is too large for that."""
    offer, body = instance.offers.get(model), request.body
    if offer is None or instance.ignores_names or not body:
        return request
    if not isinstance(body, bytes | bytearray):
        if offer.theirs == model:
            return request  # it is named so, or by an alias that the instance has to know
        raise ClientError(
            f'"{model}" is "{offer.theirs}" on {instance.name}, and a body over 1 MiB is sent there'
            " as it is: ask for that name, or give it no other one"
        )
    if name_in(body) in (offer.theirs, None):
        return request
    other = renamed(body, offer.theirs)
    return request if other is None else evolve(request, body=other)


def head_there(
    request: Request,
    target: bytes,
    instance: Instance,
    ourselves: str,
    told: Iterable[tuple[bytes, bytes]],
) -> bytes:
    """The request's head for the instance: without keys of the client's, but with those that the
    operator wrote, and what is `told` besides."""
    passed = [value for name, value in request.headers if name == _VIA]
    via = b", ".join([*passed, b"1.1 " + ourselves.encode()])
    own = [(name.encode(), value.encode()) for name, value in instance.headers]
    own += told
    return request.forwarded(
        instance.url.path.encode() + target,
        withheld={*SECRETS, EXPECTS, ON_BEHALF, _VIA, *(name.lower() for name, _ in own)},
        host=instance.url.authority.encode(),
        added=[(b"Via", via), *own],
    )


def told_to_llamasup(
    client: object, priority: int, expected: Where | None
) -> Iterator[tuple[bytes, bytes]]:
    """What we know better than another llamasup: who asks, how urgent it is, and where we believe
    the model to be; None if that is all the same."""
    yield ON_BEHALF, blake2b(repr(client).encode(), digest_size=8).hexdigest().encode()
    if priority:
        yield b"priority", b"u=%d" % min(max(_USUAL_URGENCY - priority, 0), _LEAST_URGENCY)
    if expected is not None:
        yield EXPECTS, expected.name.lower().encode()
