"""What an engine says while it runs: bytes from its stdout or stderr -> events.

llama-server's log has had many forms: text with or without clock, level and colours; JSON lines,
old and new; state reports for a parent. Each becomes a `Line` for people, in one form. A line that
means something to us becomes one more event. Nothing here relies on the engine to write correctly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeAlias, TypeVar

import msgspec
from attrs import frozen
from msgspec import Struct

from llamasup.engine.failures import Level, split_line


@frozen
class Line:
    """One line without colours and line end; a JSON line is turned into the text form."""

    text: str
    level: Level | None


@frozen
class Listening:
    """A port or socket is bound. Older engines bind before they load, so `/health` must be
    asked."""

    address: str


@frozen
class ModelLoaded:
    """The model is in memory, at the start or again after a sleep."""


@frozen
class FellAsleep:
    """The engine has freed the model, and loads it again for its next request."""


@frozen
class LoadProgress:
    """How much of the model is loaded, over all its parts; None if the engine does not say."""

    fraction: float | None


@frozen
class SlotsConfigured:
    """How many requests run at once, and the context that each has."""

    n_slots: int
    n_ctx_slot: int | None


@frozen
class PromptProgress:
    """A long prefill has made progress: the engine is busy, not stuck."""

    slot: int
    tokens: int
    fraction: float


Event: TypeAlias = (
    Line | Listening | ModelLoaded | FellAsleep | LoadProgress | SlotsConfigured | PromptProgress
)


class LogReader:
    """Reads one stream, in pieces of any size. Never raises, and never holds more than one line.

    A line longer than `longest` bytes loses its rest. If an engine prefixes its lines, a line
    without a prefix means nothing: it may be a client's, from a grammar with line breaks.
    """

    longest = 16 << 10

    def __init__(self) -> None:
        self._line = bytearray()
        self._prefixes: bool | None = None
        """Known by its first line with a prefix, or by its first milestone without. Both come
        before there are clients."""

    def feed(self, data: bytes) -> list[Event]:
        """The events of every line that `data` completes."""
        first, *others = data.split(b"\n")
        self._append(first)
        events: list[Event] = []
        for piece in others:
            events += self.end()
            self._append(piece)
        return events

    def end(self) -> list[Event]:
        """The events of the last line, if that has no line end."""
        text = self._line.decode(errors="replace")
        self._line.clear()
        events = list(_read(text))
        decided = self._prefixes is not None
        if (decided and len(events) < 2) or text.startswith(_TO_PARENT):
            return events
        return self._believed(events, is_prefixed=_has_prefix(text))

    def _believed(self, events: list[Event], is_prefixed: bool) -> list[Event]:
        milestones = [event for event in events if not isinstance(event, Line)]
        if self._prefixes is None and (is_prefixed or milestones):
            self._prefixes = is_prefixed
        if self._prefixes and not is_prefixed:
            return [event for event in events if event not in milestones]
        return events

    def _append(self, data: bytes) -> None:
        self._line += data[: max(self.longest - len(self._line), 0)]


def _has_prefix(text: str) -> bool:
    text = _COLOURS.sub("", text)
    return text.startswith("{") or split_line(text)[1] != text


def _read(text: str) -> Iterator[Event]:
    if "\x1b" in text:
        text = _COLOURS.sub("", text)
    text = text.rstrip()
    if not text:
        return
    if text.startswith("{"):
        yield from _read_json(text)
    elif text.startswith(_TO_PARENT):
        yield Line(text, "info")
        yield from _read_report(text.removeprefix(_TO_PARENT))
    else:
        yield from _read_text(text)


_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_TO_PARENT = "cmd_child_to_router:state:"


def _read_text(text: str) -> Iterator[Event]:
    level, message = split_line(text)
    yield Line(text, level)
    if level in (None, "info"):
        yield from _read_milestone(message)


def _read_milestone(message: str) -> Iterator[Event]:
    function = _FUNCTION.match(message)
    body = message[function.end() :] if function else message
    if body.startswith(_OPENINGS):
        for form, event in _MILESTONES:
            if said := form.match(body):
                yield event(*said.groups())
                return


_FUNCTION = re.compile(r"(?:(?:srv|slot|cmn|que|res) +)?\w+: ")

# Most lines are none of these: looking at their beginning saves the searches.
_OPENINGS = ("listening", "server is", "llama server", "HTTP", "model", "initializing", "id")


def _at_host_and_port(host: str, port: str) -> Listening:
    return Listening(f"http://{host}:{port}")


def _slots(n_slots: str, n_ctx_slot: str | None) -> SlotsConfigured:
    return SlotsConfigured(int(n_slots), int(n_ctx_slot) if n_ctx_slot else None)


def _prompt(slot: str, tokens: str, fraction: str) -> PromptProgress:
    return PromptProgress(int(slot), int(tokens), float(fraction))


# Numbers are bounded because Python refuses to read very long ones.
_MILESTONES: tuple[tuple[re.Pattern[str], Callable[..., Event]], ...] = (
    (re.compile(r"(?:llama |server is |server )*listening (?:on|at) (\w+://\S+)"), Listening),
    (
        re.compile(
            r'HTTP server (?:is )?listening(?=.*\bhostname\W+([^\s",]+))(?=.*\bport\W+([0-9]{1,5}))'
        ),
        _at_host_and_port,
    ),
    (re.compile(r"model loaded(?: \|.*)?$"), ModelLoaded),
    (
        re.compile(
            r'initializing\b.*?\bn_slots ?= ?"?([0-9]{1,9})\b'
            r'(?:.*?\bn_ctx_slot ?= ?"?([0-9]{1,9})\b)?'
        ),
        _slots,
    ),
    (
        re.compile(
            r"id +([0-9]{1,9}) \| task -?[0-9]{1,9} \| "
            r"prompt processing(?: progress)?, n_(?:tokens|past) = +"
            r"([0-9]{1,9}),.*? progress = ([0-9]{1,9}(?:\.[0-9]{1,9})?)"
        ),
        _prompt,
    ),
)


class _Row(Struct):
    """A JSON line, new (`{"type":"log",…,"msg"}`) or old (`{"function",…,"msg" or "message"}`)."""

    msg: str = ""
    message: str = ""
    level: str = ""
    function: str = ""
    hostname: str = ""
    port: str | int = ""
    n_slots: int = 0
    error: str = ""


def _read_json(text: str) -> Iterator[Event]:
    row = _decoded(text, _Row)
    if row is None or not (message := row.msg or row.message):
        yield Line(text, None)
        return
    prefix = _LETTERS.get(row.level.upper(), "")
    if row.function:
        prefix += f"{row.function}: "
        message += "".join(f" {name}={value}" for name in _TOLD if (value := getattr(row, name)))
    first, *others = [part.rstrip() for part in message.splitlines() if part.strip()] or [""]
    if first:
        yield from _read_text(prefix + first)
    for part in others:  # it is the rest of a longer line, whatever it looks like
        text = prefix + part
        yield Line(text, split_line(text)[0])


_LETTERS = {
    **dict.fromkeys(("DEBUG", "VERB"), "D "),
    "INFO": "I ",
    **dict.fromkeys(("WARN", "WARNING"), "W "),
    **dict.fromkeys(("ERR", "ERROR"), "E "),
}
_TOLD = ("hostname", "port", "n_slots", "error")


class _Progress(Struct):
    stages: list[str] = []
    current: str = ""
    value: float | None = None


class _Report(Struct):
    """The events in what a child reports to its parent."""

    state: str
    payload: _Progress | None = None


def _read_report(text: str) -> Iterator[Event]:
    match _decoded(text, _Report):
        case _Report("loading", payload):
            yield LoadProgress(_fraction(payload) if payload else None)
        case _Report("ready"):
            yield ModelLoaded()
        case _Report("sleeping"):
            yield FellAsleep()


def _fraction(progress: _Progress) -> float | None:
    """The progress over all stages; each stage counts its own from 0 to 1."""
    if progress.value is None or progress.current not in progress.stages:
        return None
    done = progress.stages.index(progress.current)
    return (done + min(1.0, max(0.0, progress.value))) / len(progress.stages)


T = TypeVar("T", bound=Struct)


def _decoded(text: str, shape: type[T]) -> T | None:
    try:
        return msgspec.json.decode(text, type=shape)
    except (msgspec.MsgspecError, RecursionError):
        return None
