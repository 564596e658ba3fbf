"""Anthropic's messages. Pure."""

from __future__ import annotations

from typing import Final

from llamasup.apis.dialect import Dialect, Layout, server_sent_event
from llamasup.errors import LlamasupError


class Messages(Dialect):
    """`/v1/messages`."""

    about = "Anthropic's messages"
    stream_paths = (b"/v1/messages",)
    question_paths = (b"/v1/messages/count_tokens",)
    whole = Layout(
        # What the engine remembered of the prompt is not in the first number.
        prompt_tokens=(("usage", "input_tokens"), ("usage", "cache_read_input_tokens")),
        answer_tokens=("usage", "output_tokens"),
        end_reason=("stop_reason",),
        cached_tokens=(("usage", "cache_read_input_tokens"),),
    )
    streamed = Layout(
        prompt_tokens=(
            ("message", "usage", "input_tokens"),
            ("message", "usage", "cache_read_input_tokens"),
        ),
        answer_tokens=("usage", "output_tokens"),
        end_reason=("delta", "stop_reason"),
        cached_tokens=(("message", "usage", "cache_read_input_tokens"),),
    )
    last_events = ({"type": "message_stop"},)

    def speaks_at(self, path: bytes) -> bool:
        """See `Dialect.speaks_at`. Clients may leave out the `/v1`."""
        return path.endswith((b"/messages", b"/messages/count_tokens"))

    def error_body(self, error: LlamasupError) -> object:
        """See `Dialect.error_body`."""
        kind = _ERROR_TYPES.get(error.status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": str(error)}}

    def error_event(self, error: LlamasupError) -> bytes:
        """See `Dialect.error_event`."""
        return server_sent_event(self.error_body(error), b"error")

    def passes_the_time(self, document: object) -> bool:
        """See `Dialect.passes_the_time`."""
        match document:
            case {"type": "ping"}:
                return True
        return False

    def only_opens(self, document: object) -> bool:
        """See `Dialect.only_opens`."""
        match document:
            case {"type": "message_start" | "content_block_start"}:
                return True
        return False


_ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
