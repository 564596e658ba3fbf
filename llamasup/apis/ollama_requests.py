"""Reads requests in Ollama's APIs, and puts options, formats and images as an engine's. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from llamasup.errors import ClientError

Asked = TypeVar("Asked")
Members = dict[str, Any]
"""The members of a JSON object."""

NOTHING: Final = msgspec.Raw(b"null")
"""The value of a member that a request does not have."""


class Request(msgspec.Struct):
    """The members that several of Ollama's requests have."""

    model: str | None = None
    stream: bool | None = None
    keep_alive: msgspec.Raw = NOTHING
    options: dict[str, msgspec.Raw] | None = None
    format: msgspec.Raw = NOTHING
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    @property
    def streams(self) -> bool:
        """Is the answer to be a stream?"""
        return self.stream is not False

    @property
    def unloads(self) -> bool:
        """Is the model to be unloaded after the answer?"""
        return _NO_TIME.fullmatch(bytes(self.keep_alive)) is not None


_NO_TIME: Final = re.compile(rb'0++(?:\.0++)?|"(?:0++(?:\.0++)?[a-z]{0,2}+)++"')
"""No time as JSON: a number of seconds, or a text like "0s" or "0h0m"."""


def understood(body: bytes, kind: type[Asked]) -> Asked:
    """The request in this body. Raises ClientError if it is none of this kind."""
    try:
        return msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ClientError(f"the body cannot be understood: {error}") from None
    except RecursionError:
        raise ClientError("the body is nested too deeply") from None


_PASSED_ON: Final = (
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "seed", "stop"),
    *("repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty"),
    *("mirostat", "mirostat_tau", "mirostat_eta"),
)
"""Options that llama-server knows by the same names. It checks their values."""

_UNTIL_FULL: Final = b"-2"
_WITHOUT_END: Final = msgspec.Raw(b"-1")


def sampling(options: Mapping[str, msgspec.Raw] | None, limit: str) -> Members:
    """The options as members of an engine's request; `limit` is its name for `num_predict`."""
    given = {name: raw for name, raw in (options or {}).items() if raw != NOTHING}
    members: Members = {name: given[name] for name in _PASSED_ON if name in given}
    if "num_keep" in given:
        members["n_keep"] = given["num_keep"]
    if "num_predict" in given:
        most = given["num_predict"]
        members[limit] = _WITHOUT_END if bytes(most) == _UNTIL_FULL else most
    if (stop := bytes(members.get("stop", b""))).startswith(b'"'):
        members["stop"] = [msgspec.Raw(stop)]
    return members


def schema(format: msgspec.Raw) -> msgspec.Raw | None:
    """The JSON schema that the answer has to follow; None if it is free.

    Raises ClientError if `format` is neither "json" nor a schema.
    """
    given = bytes(format)
    if given in (b"null", b'""'):
        return None
    if given == b'"json"':
        return msgspec.Raw(b'{"type":"object"}')
    if given.startswith(b"{"):
        return format
    raise ClientError('`format` is neither "json" nor a JSON schema')


def chat_request(asked: Request, messages: Sequence[object]) -> Members:
    """What all requests have that are put as OpenAI's chat completions."""
    members: Members = {"model": asked.model} if asked.model else {}
    members |= {"messages": messages, "stream": asked.streams}
    if asked.streams:
        members["stream_options"] = {"include_usage": True}
    members |= sampling(asked.options, limit="max_tokens")
    if (wanted := schema(asked.format)) is not None:
        members["response_format"] = {"type": "json_schema", "json_schema": {"schema": wanted}}
    if asked.think is not None:
        members["chat_template_kwargs"] = _thinking(asked.think)
    if asked.logprobs:
        members["logprobs"] = True
        members["top_logprobs"] = asked.top_logprobs or 1  # for 0, llama-server says none at all
    return members


def _thinking(think: bool | str) -> Members:
    """How chat templates are told whether to think, and how much ("low", "medium", "high")."""
    if isinstance(think, bool):
        return {"enable_thinking": think}
    return {"enable_thinking": True, "reasoning_effort": think}


def content(text: str, images: Sequence[msgspec.Raw] | None) -> object:
    """A message's text and images as OpenAI's content. Raises ClientError."""
    if not images:
        return text
    words = [{"type": "text", "text": text}] if text else []
    return [*words, *({"type": "image_url", "image_url": {"url": _url(raw)}} for raw in images)]


_KINDS: Final = (
    (b"/9j/", b"jpeg"),
    (b"R0lG", b"gif"),
    (b"UklG", b"webp"),
    (b"Qk", b"bmp"),
)
_USUAL_KIND: Final = b"png"


def _url(image: msgspec.Raw) -> msgspec.Raw:
    """An image in base 64, as JSON, as a `data:` URL. It is copied, and never decoded."""
    given = memoryview(image)  # of megabytes, so the fewer copies the better
    beginning = bytes(given[:16])
    if not beginning.startswith(b'"'):
        raise ClientError("an image is not a text in base 64")
    if beginning.startswith((b'"data:', b'"http:', b'"https:')):
        return image
    plain = beginning[1:].replace(b"\\", b"")
    kind = next((kind for start, kind in _KINDS if plain.startswith(start)), _USUAL_KIND)
    return msgspec.Raw(b"".join((b'"data:image/%b;base64,' % kind, given[1:])))
