"""OpenAI's completions. Without `/v1` their path is llama.cpp's own, in `llama_cpp`. Pure."""

from __future__ import annotations

from llamasup.apis.openai import WithChoices


class Completions(WithChoices):
    """`/v1/completions`."""

    about = "OpenAI's completions"
    stream_paths = (b"/v1/completions",)
    several = ("n", "prompt")

    def says_nothing(self, choice: object) -> bool:
        """See `WithChoices.says_nothing`."""
        match choice:
            case {"finish_reason": str()}:
                return False
            case {"text": ""}:
                return True
        return False
