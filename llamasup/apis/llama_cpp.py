"""llama.cpp's own API, and what llama-server adds to the others. Pure."""

from __future__ import annotations

from typing import Final

from llamasup.apis.dialect import TIMINGS, Dialect, Layout
from llamasup.errors import LlamasupError

ONE_SLOT: Final = b"/slots/"
"""The number of a slot follows this. No other path has a part that varies."""


class LlamaCpp(Dialect):
    """`/completion` and many more, none of them below `/v1`."""

    about = "llama.cpp's own API"
    stream_paths = (b"/completion", b"/completions", b"/infill", b"/predict")
    work_paths = (b"/embedding",)
    question_paths = (
        *(b"/tokenize", b"/detokenize", b"/apply-template"),
        *(b"/lora-adapters", b"/props"),
    )
    view_paths = (b"/props", b"/metrics", b"/slots", b"/lora-adapters")
    several = ("n_cmpl", "prompt")
    whole = Layout(
        prompt_tokens=(("tokens_evaluated",),),
        answer_tokens=("tokens_predicted",),
        end_reason=("stop_type",),
        cached_tokens=(("timings", "cache_n"),),
        or_else=TIMINGS,
    )
    streamed = whole
    last_events = ({"stop": True},)

    def speaks_at(self, path: bytes) -> bool:
        """See `Dialect.speaks_at`."""
        return super().speaks_at(path) or ONE_SLOT in path

    def error_body(self, error: LlamasupError) -> object:
        """See `Dialect.error_body`. Here `code` is a number; our own code stands in `reason`."""
        return {
            "error": {
                "code": error.status,
                "message": str(error),
                "type": _ERROR_TYPES.get(error.status, error.type),
                "reason": error.code,
            }
        }

    def passes_the_time(self, document: object) -> bool:
        """See `Dialect.passes_the_time`. The streams of other APIs may have such events, too."""
        match document:
            case {"prompt_progress": dict()}:
                return True
        return False

    def only_opens(self, document: object) -> bool:
        """See `Dialect.only_opens`."""
        match document:
            case {"error": _}:
                return False
            case {"content": "", "stop": False}:
                return True
        return False


_ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}
