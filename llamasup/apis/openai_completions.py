"""OpenAI's completions. Without `/v1` their path is llama.cpp's own, in `llama_cpp`. Pure."""

from __future__ import annotations

from llamasup.apis.dialect import Layout
from llamasup.apis.openai import OpenAI


class Completions(OpenAI):
    """`/v1/completions`."""

    stream_paths = (b"/v1/completions",)
    several = ("n", "prompt")
    whole = Layout(
        prompt_tokens=(("usage", "prompt_tokens"),),
        answer_tokens=("usage", "completion_tokens"),
        end_reason=("choices", 0, "finish_reason"),
    )
    streamed = whole
    last_events = (b"[DONE]",)

    def only_opens(self, document: object) -> bool:
        """See `Dialect.only_opens`."""
        match document:
            case {"error": _}:
                return False
            case {"choices": [*choices]}:
                return all(map(_says_nothing, choices))
        return False


def _says_nothing(choice: object) -> bool:
    match choice:
        case {"finish_reason": str()}:
            return False
        case {"text": ""}:
            return True
    return False
