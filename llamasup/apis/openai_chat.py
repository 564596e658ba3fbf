"""OpenAI's chat completions. Pure."""

from __future__ import annotations

from llamasup.apis.dialect import Layout
from llamasup.apis.openai import OpenAI


class Chat(OpenAI):
    """`/v1/chat/completions`."""

    stream_paths = (b"/chat/completions", b"/v1/chat/completions")
    question_paths = (b"/chat/completions/input_tokens", b"/v1/chat/completions/input_tokens")
    several = ("n",)
    whole = Layout(
        prompt_tokens=(("usage", "prompt_tokens"),),
        answer_tokens=("usage", "completion_tokens"),
        end_reason=("choices", 0, "finish_reason"),
    )
    streamed = whole
    """The numbers come only if the request has `stream_options.include_usage`, and then in an event
    of their own, without choices."""

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
        case {"delta": dict(delta)}:
            return not any(value for name, value in delta.items() if name != "role")
    return False
