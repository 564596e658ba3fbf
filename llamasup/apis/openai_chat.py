"""OpenAI's chat completions. Pure."""

from __future__ import annotations

from llamasup.apis.openai import WithChoices


class Chat(WithChoices):
    """`/v1/chat/completions`."""

    about = "OpenAI's chat completions"
    stream_paths = (b"/chat/completions", b"/v1/chat/completions")
    question_paths = (
        *(b"/chat/completions/input_tokens", b"/v1/chat/completions/input_tokens"),
        b"/v1/chat/completions/control",
    )
    several = ("n",)

    def says_nothing(self, choice: object) -> bool:
        """See `WithChoices.says_nothing`."""
        match choice:
            case {"finish_reason": str()}:
                return False
            case {"delta": dict(delta)}:
                return not any(value for name, value in delta.items() if name != "role")
        return False
