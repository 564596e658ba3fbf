"""What all of OpenAI's APIs have in common: the form of an error. Pure."""

from __future__ import annotations

import msgspec

from llamasup.apis.dialect import Dialect
from llamasup.errors import ClientError, LlamasupError


class OpenAI(Dialect):
    """An API in the manner of OpenAI's."""

    def error_body(self, error: LlamasupError) -> object:
        """See `Dialect.error_body`."""
        return {"error": {"message": str(error), "type": error.type, "code": error.code}}

    def corrected(self, status: int, body: bytes) -> bytes | None:
        """See `Dialect.corrected`. Clients expect an error's code to be a name; llama-server writes
        the status there again, as a number."""
        if status != ClientError.status:
            return None
        try:
            answer = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        match answer:
            case {"error": {"code": str()}}:
                return None
            case {"error": {"message": str()} as error}:
                named = {**error, "code": ClientError.code}
                return msgspec.json.encode({**answer, "error": named})
        return None
