"""What Ollama's APIs have in common: errors, lines, and how a request is put to llama-server. Pure.

Ollama streams unless a request says `"stream": false`, as lines of JSON. A client that waits for a
line may be sent blanks meanwhile: JSON allows them before a value.

What cannot be obeyed here, and is ignored as Ollama's users expect it of options:

- `num_ctx`: the context is the model's rung (`models.NAME.context_size`); nothing is reloaded.
- `num_gpu`, `num_thread`, `num_batch`, `use_mmap`, `main_gpu` and the like: how a model is launched
  is written in llamasup's configuration.
- `keep_alive`, but for 0, which unloads the model after the answer unless others use it:
  `pool.idle_unload` says when idle models are unloaded.
- `truncate`, `shift`: the engine says what does not fit.
- `penalize_newline`, `tfs_z`: no engine has them any more.

What would change the answer and cannot be obeyed is refused: `template`, `context` with tokens in
it, images in a raw prompt.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from attrs import frozen

from llamasup.apis.dialect import Dialect
from llamasup.apis.said import Call, End, Failure, Listener, Said
from llamasup.apis.translation import Moment, Reply, Residence, Translation
from llamasup.errors import ClientError, LlamasupError

Asked = TypeVar("Asked")
Members = dict[str, Any]

NOTHING: Final = msgspec.Raw(b"null")
"""The value of a member that a request does not have."""


class OllamaErrors(Dialect):
    """An API whose errors have Ollama's form."""

    stream_type = b"application/x-ndjson"

    def error_body(self, error: LlamasupError) -> object:
        """See `Dialect.error_body`."""
        return {"error": str(error)}

    def error_event(self, error: LlamasupError) -> bytes:
        """See `Dialect.error_event`."""
        return json.dumps(self.error_body(error)).encode() + b"\n"

    def comment(self, words: bytes) -> bytes:
        """See `Dialect.comment`. Lines of JSON have no room for words."""
        return b" "

    def corrected(self, status: int, body: bytes) -> bytes | None:
        """See `Dialect.corrected`."""
        try:
            match msgspec.json.decode(body):
                case {"error": {"message": str(message)}}:
                    return msgspec.json.encode({"error": message})
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        return None


class Ollama(OllamaErrors):
    """One of Ollama's APIs that ask a model. No engine speaks them, so each request is
    translated."""

    @abstractmethod
    def translated(self, path: bytes, body: bytes) -> Translation | Residence:
        """The request as an engine is asked. Raises ClientError if it cannot be understood, or
        not be obeyed."""


# --- requests ---


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


# --- answers ---


@frozen
class Teller:
    """Writes what a model says as Ollama's lines, or as one document."""

    moment: Moment

    def opening(self) -> Members:
        """The members with which every line begins."""
        return {"model": self.moment.model, "created_at": self.moment.created_at}

    def resident(self, members: Members, reason: str) -> bytes:
        """The document for a model that was loaded or unloaded."""
        return msgspec.json.encode(self.opening() | members | {"done": True, "done_reason": reason})

    def ending(self, end: End) -> Members:
        """The members of the last line."""
        took = {
            "load_duration": _nanoseconds(self.moment.waited * 1000),
            "prompt_eval_count": end.prompt_tokens,
            "prompt_eval_duration": _nanoseconds(end.prompt_ms),
            "eval_count": end.answer_tokens,
            "eval_duration": _nanoseconds(end.answer_ms),
        }
        total = sum(took[name] for name in took if name.endswith("_duration"))
        reason = "length" if end.too_long else "stop"
        return {"done": True, "done_reason": reason, "total_duration": total, **took}


def _nanoseconds(milliseconds: float) -> int:
    return round(milliseconds * 1e6)


class Telling(Reply):
    """An answer in words, heard in one form and told in Ollama's."""

    def __init__(self, moment: Moment, listener: Listener) -> None:
        super().__init__()
        self._teller = Teller(moment)
        self._listener = listener

    @abstractmethod
    def said(self, said: Said) -> Members:
        """The members of a line in which the model says this."""

    def whole(self, body: bytes) -> bytes:
        """See `Reply.whole`."""
        said, end = self._listener.whole(body)
        return msgspec.json.encode(self._line(said) | self._teller.ending(end))

    def _told(self, data: bytes) -> Iterator[bytes]:
        for heard in self._listener.heard(data):
            match heard:
                case Said():
                    yield _written(self._line(heard) | {"done": False})
                case End():
                    self.ended = True
                    yield _written(self._line(Said()) | self._teller.ending(heard))
                case Failure():
                    self.ended, self.error = True, heard.message
                    yield _written({"error": heard.message})

    def _line(self, said: Said) -> Members:
        line = self._teller.opening() | self.said(said)
        if said.has_logprobs:
            line["logprobs"] = said.logprobs
        return line


def _written(line: Members) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def tool_calls(calls: Sequence[Call]) -> tuple[list[Members], str]:
    """The calls in Ollama's form, where arguments are an object; and the text of what is none.

    A model's call may be broken, or cut at a limit of tokens. Ollama leaves such words in the text.
    """
    told: list[Members] = []
    broken = ""
    for call in calls:
        try:
            arguments = msgspec.json.decode(call.arguments or "{}", type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            broken += json.dumps({"name": call.name, "arguments": call.arguments})
            continue
        function: Members = {"index": len(told), "name": call.name, "arguments": arguments}
        told.append({"id": call.id, "function": function} if call.id else {"function": function})
    return told, broken
