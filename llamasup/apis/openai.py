"""What all of OpenAI's APIs have in common: the form of an error. Pure."""

from __future__ import annotations

from abc import abstractmethod

import msgspec

from llamasup.apis.dialect import TIMINGS, Dialect, Layout
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


class WithChoices(OpenAI):
    """An API whose answers lie in `choices`."""

    whole = Layout(
        prompt_tokens=(("usage", "prompt_tokens"),),
        answer_tokens=("usage", "completion_tokens"),
        end_reason=("choices", 0, "finish_reason"),
        cached_tokens=(
            ("usage", "prompt_tokens_details", "cached_tokens"),
            ("timings", "cache_n"),
        ),
        or_else=TIMINGS,
    )
    streamed = whole
    """The numbers of `usage` come only if the request has `stream_options.include_usage`, and then
    in an event of their own, without choices."""

    last_events = (b"[DONE]",)

    def only_opens(self, document: object) -> bool:
        """See `Dialect.only_opens`."""
        match document:
            case {"error": _}:
                return False
            case {"choices": [*choices]}:
                return all(map(self.says_nothing, choices))
        return False

    @abstractmethod
    def says_nothing(self, choice: object) -> bool:
        """Is there no word of the answer in this one of an event's choices, and not its end?"""
