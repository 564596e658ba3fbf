"""What a model says, read from an engine's answer in one of its two forms. Pure.

The forms are OpenAI's chat completions, and llama.cpp's own completions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import msgspec
from attrs import frozen

from llamasup.errors import EngineFailed

Document = TypeVar("Document")

_NOTHING: Final = msgspec.Raw(b"null")


@frozen
class Call:
    """A call of a tool, complete."""

    name: str
    arguments: str
    """JSON, as the model wrote it; it may be broken."""

    id: str = ""


@frozen
class Said:
    """A part of what the model says, or all of it."""

    text: str = ""
    thinking: str = ""
    calls: Sequence[Call] = ()
    logprobs: msgspec.Raw = _NOTHING
    """A list in JSON, of which each entry has `token` and `logprob`; or null."""

    @property
    def has_logprobs(self) -> bool:
        """Are there any logprobs?"""
        return self.logprobs != _NOTHING


@frozen
class End:
    """How the answer ended, and what it took."""

    too_long: bool = False
    """Was it cut at a limit of tokens?"""

    prompt_tokens: int = 0
    answer_tokens: int = 0
    prompt_ms: float = 0.0
    answer_ms: float = 0.0


@frozen
class Failure:
    """The engine's error, in its own words, in the place of the rest."""

    message: str


class Listener(ABC):
    """Hears one answer in one form."""

    @abstractmethod
    def whole(self, body: bytes) -> tuple[Said, End]:
        """What an answer says that is no stream. Raises EngineFailed if it cannot be read."""

    @abstractmethod
    def heard(self, data: bytes) -> Iterator[Said | End | Failure]:
        """What the next event of a stream says; `End` or `Failure` comes last.

        Raises EngineFailed if it cannot be read.
        """


class _Timings(msgspec.Struct):
    prompt_ms: float = 0.0
    predicted_ms: float = 0.0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _Function = msgspec.field(default_factory=_Function)


class _Words(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Logprobs(msgspec.Struct):
    content: msgspec.Raw = _NOTHING


class _Choice(msgspec.Struct):
    delta: _Words = msgspec.field(default_factory=_Words)
    message: _Words = msgspec.field(default_factory=_Words)
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Chat(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: msgspec.Raw = _NOTHING
    message: str | None = None
    """Of an error that is not wrapped."""


_DONE: Final = b"[DONE]"


class ChatListener(Listener):
    """Hears OpenAI's chat completions. The parts of a tool's call are put together."""

    def __init__(self) -> None:
        self._calls: dict[int, Call] = {}
        self._too_long = False
        self._usage = _Usage()
        self._timings = _Timings()

    def whole(self, body: bytes) -> tuple[Said, End]:
        """See `Listener.whole`."""
        document = _read(body, _Chat)
        if not document.choices:
            raise EngineFailed("the engine's answer has no choices")
        choice = document.choices[0]
        self._note(document)
        calls = choice.message.tool_calls or []
        for index, call in enumerate(calls):
            call.index = index
            self._add(call)
        said = _said(choice.message, choice.logprobs, self._complete())
        return said, self._end()

    def heard(self, data: bytes) -> Iterator[Said | End | Failure]:
        """See `Listener.heard`."""
        if data == _DONE:
            if self._calls:
                yield Said(calls=self._complete())
            yield self._end()
            return
        document = _read(data, _Chat)
        if failure := _failure(document.error, document.message):
            yield failure
            return
        self._note(document)
        for choice in document.choices:
            for call in choice.delta.tool_calls or ():
                self._add(call)
            said = _said(choice.delta, choice.logprobs)
            if said.text or said.thinking or said.has_logprobs:
                yield said

    def _note(self, document: _Chat) -> None:
        self._usage = document.usage or self._usage
        self._timings = document.timings or self._timings
        for choice in document.choices:
            self._too_long |= choice.finish_reason == "length"

    def _add(self, part: _Call) -> None:
        begun = self._calls.get(part.index, Call("", ""))
        self._calls[part.index] = Call(
            begun.name + (part.function.name or ""),
            begun.arguments + (part.function.arguments or ""),
            begun.id or part.id or "",
        )

    def _complete(self) -> Sequence[Call]:
        return tuple(self._calls.values())

    def _end(self) -> End:
        usage, timings = self._usage, self._timings
        return End(
            self._too_long,
            usage.prompt_tokens,
            usage.completion_tokens,
            timings.prompt_ms,
            timings.predicted_ms,
        )


class _Completion(msgspec.Struct):
    content: str = ""
    stop: bool = False
    stop_type: str = ""
    tokens_evaluated: int = 0
    tokens_predicted: int = 0
    timings: _Timings = msgspec.field(default_factory=_Timings)
    completion_probabilities: msgspec.Raw = _NOTHING
    error: msgspec.Raw = _NOTHING
    message: str | None = None
    """Of an error that is not wrapped."""


class CompletionListener(Listener):
    """Hears llama.cpp's own completions."""

    def whole(self, body: bytes) -> tuple[Said, End]:
        """See `Listener.whole`."""
        document = _read(body, _Completion)
        return Said(document.content, logprobs=document.completion_probabilities), _end(document)

    def heard(self, data: bytes) -> Iterator[Said | End | Failure]:
        """See `Listener.heard`."""
        document = _read(data, _Completion)
        if failure := _failure(document.error, document.message):
            yield failure
            return
        if document.content:
            yield Said(document.content, logprobs=document.completion_probabilities)
        if document.stop:
            yield _end(document)


def _end(document: _Completion) -> End:
    return End(
        document.stop_type == "limit",
        document.tokens_evaluated,
        document.tokens_predicted,
        document.timings.prompt_ms,
        document.timings.predicted_ms,
    )


def _said(words: _Words, logprobs: _Logprobs | None, calls: Sequence[Call] = ()) -> Said:
    return Said(
        words.content or "",
        words.reasoning_content or "",
        calls,
        logprobs.content if logprobs else _NOTHING,
    )


class _Error(msgspec.Struct):
    message: str = "the engine failed"


def _failure(error: msgspec.Raw, message: str | None) -> Failure | None:
    """The error in an event: wrapped, not wrapped, or only a text; None if there is none."""
    if error == _NOTHING:
        return None if message is None else Failure(message)
    if bytes(error).startswith(b"{"):
        return Failure(_read(bytes(error), _Error).message)
    return Failure(_read(bytes(error), str))


def _read(document: bytes, kind: type[Document]) -> Document:
    try:
        return msgspec.json.decode(document, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EngineFailed(f"the engine's answer cannot be understood: {error}") from None
