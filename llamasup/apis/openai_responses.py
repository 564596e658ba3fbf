"""OpenAI's responses. Pure."""

from __future__ import annotations

from llamasup.apis.dialect import TIMINGS, Layout, server_sent_event
from llamasup.apis.openai import OpenAI
from llamasup.errors import LlamasupError


class Responses(OpenAI):
    """`/v1/responses`."""

    about = "OpenAI's responses"
    stream_paths = (b"/responses", b"/v1/responses")
    question_paths = (b"/responses/input_tokens", b"/v1/responses/input_tokens")
    several = ("n",)
    """OpenAI knows no such member; llama-server answers it with a list."""

    whole = Layout(
        prompt_tokens=(("usage", "input_tokens"),),
        answer_tokens=("usage", "output_tokens"),
        end_reason=("status",),
        cached_tokens=(("usage", "input_tokens_details", "cached_tokens"), ("timings", "cache_n")),
    )
    streamed = Layout(
        prompt_tokens=(("response", "usage", "input_tokens"),),
        answer_tokens=("response", "usage", "output_tokens"),
        end_reason=("response", "status"),
        cached_tokens=(
            ("response", "usage", "input_tokens_details", "cached_tokens"),
            ("timings", "cache_n"),
        ),
        or_else=TIMINGS,
    )
    last_events = (
        {"type": "response.completed"},
        {"type": "response.incomplete"},
        {"type": "response.failed"},
    )

    def error_event(self, error: LlamasupError) -> bytes:
        """See `Dialect.error_event`."""
        document = {"type": "error", "code": error.code, "message": str(error), "param": None}
        return server_sent_event(document, b"error")

    def only_opens(self, document: object) -> bool:
        """See `Dialect.only_opens`."""
        match document:
            case {
                "type": "response.created"
                | "response.in_progress"
                | "response.output_item.added"
                | "response.content_part.added"
            }:
                return True
        return False
