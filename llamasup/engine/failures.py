"""Why a child is gone, or a request failed: exit status, last log lines or reply -> cause.

The engine exits with 1 for nearly everything, so its log lines decide. `_SIGNS` has all those that
we know, of every backend and version; when a new one is met, it is added there.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Literal

from attrs import evolve, frozen

from llamasup.upstream import Verdict

Level = Literal["debug", "info", "warning", "error"]


class Kind(Enum):
    """What went wrong: kinds that llamasup treats differently."""

    ENGINE_UNUSABLE = "engine_unusable"
    """The program does not run here: no such file, a missing library, another CPU or GPU."""
    BAD_FLAG = "bad_flag"
    """An argument, or a combination of them, that this engine refuses."""
    ADDRESS_IN_USE = "address_in_use"
    MISSING_FILE = "missing_file"
    UNKNOWN_ARCHITECTURE = "unknown_architecture"
    """The model is newer than the engine."""
    BAD_MODEL_FILE = "bad_model_file"
    OUT_OF_MEMORY = "out_of_memory"
    CRASH = "crash"
    KILLED = "killed"
    """Another process killed the child; with SIGKILL, maybe the kernel because memory ran out."""
    HANG = "hang"
    """The child lives, but makes no progress."""
    FINISHED = "finished"
    """The child ended by itself, without an error."""
    REMOTE = "remote"
    """An RPC server is gone or cannot be reached, on whose devices the model is."""
    SHORTAGE = "shortage"
    """llamasup lacked a process, a descriptor or a port to start the child, or the engine lacked
    threads. That may be temporary."""
    UNKNOWN = "unknown"


class Where(Enum):
    """What the memory was needed for."""

    WEIGHTS = "weights"
    KV = "kv"
    COMPUTE = "compute"
    UNKNOWN = "unknown"


@frozen
class Cause:
    """Why a child is gone; `words` is one line for an operator, if possible the engine's own.

    `where` and `proven` are only for OUT_OF_MEMORY. A cause is proven if it was measured, or if a
    single request cannot cause it: only then is it worth remembering.
    """

    kind: Kind
    words: str
    where: Where = Where.UNKNOWN
    proven: bool = True


@frozen
class Heard:
    """A line of the log, and when it came."""

    at: float
    text: str


def split_line(line: str) -> tuple[Level | None, str]:
    """The level that a log line claims, if it does, and the line without clock and level."""
    if line[:1] in "DEIVW" and (old := _OLD_PREFIX.match(line)):
        return _LEVELS[old[1][0]], f"{old[2]}: {line[old.end() :]}"
    prefix = _PREFIX.match(line)
    assert prefix is not None  # every part of it is optional
    return _LEVELS.get(prefix[1] or ""), line[prefix.end() :]


_LEVELS: dict[str, Level] = {
    "D": "debug",
    "V": "debug",
    "I": "info",
    "W": "warning",
    "E": "error",
}
_PREFIX = re.compile(r"(?:[0-9]{1,9}\.[0-9]{2}\.[0-9]{3}\.[0-9]{3} )?(?:([DIWE]) )?")
_OLD_PREFIX = re.compile(r"(DEBUG|VERB|INFO|WARN|WARNING|ERR|ERROR) +\[ *([^\]\s]+)\] +")


def clean(message: str) -> str:
    """A message without the names of functions before it: one line of bounded length."""
    words = " ".join(message[:_LONGEST_MESSAGE].split())
    while (wrapped := _WRAPPING.match(words)) and wrapped.end() < len(words):
        words = words[wrapped.end() :]
    return words if len(words) <= _LONGEST_WORDS else f"{words[:_LONGEST_WORDS]}…"


_LONGEST_WORDS = 400
_LONGEST_MESSAGE = 4 * _LONGEST_WORDS  # a long line of nothing but such names would take long
_WRAPPING = re.compile(
    r"(?:(?:srv|slot|cmn|que|res) )?(?!\w*Error:)~?\w+(?:\(\))?: "
    r"|error loading model(?: \w+)*: "
    r"|failed to initialize the context: "
)


def symptom(message: str) -> Kind | None:
    """The kind of trouble that a message, without clock and level, points to, if any.

    This is a hint and no verdict: the engine may still overcome it. Only `explain` knows the end.
    """
    if not any(word in message for word in _ALARMING) or _HARMLESS.search(message):
        return None
    return next((kind for kind, sign in _SIGNS if sign.search(message)), None)


# A verbose engine logs for each token, and looking for a substring takes a tenth of the time of a
# regex. So each sign contains one of these.
_ALARMING = (
    *("rror", "rrno", "ailed", "annot", "nvalid", "nknown", "not found", "expected"),
    *("emory", "EMORY", "alloc", "ALLOC", "bind", "in use", "GGUF", "corrupt", "terminat"),
    *("not loaded", "are loaded", "requires", ".cpp:", ".cu:", ".c:"),
    *("navailable", "hread"),
)

# Without pinned pages, locked pages or a cached prompt the engine goes on.
_HARMLESS = re.compile(r"pinned memory|mlock|prompt cache")

_REMOTE_LOST = r"ggml-rpc\.cpp:[0-9]+: (?:Remote RPC server crashed|Failed to connect to )"

# The first kind that has a sign in the log wins, so whatever explains others stands before them.
_SIGNS = tuple(
    (kind, re.compile("|".join(signs)))
    for kind, signs in {
        Kind.ENGINE_UNUSABLE: (
            r"error while loading shared libraries",
            r"symbol lookup error",
            r"version `\w+[^']*' not found",
            r"Library not loaded",
            r"Exec format error",
            r"cannot execute",
            r"^\[Errno \d+\]",
            r"^(?:ImportError|ModuleNotFoundError): ",
            r"no backends are loaded",
            r"no kernel image is available",
        ),
        Kind.BAD_FLAG: (
            r"^error: (?:invalid|unknown) (?:argument|parameter)",
            r"^error while handling (?:argument|environment)",
            r"error: unrecognized arguments",
            r"quantized V cache (?:requires|was requested)|V cache quantization requires",
        ),
        Kind.ADDRESS_IN_USE: (
            r"couldn't bind",
            r"[Aa]ddress already in use",
        ),
        Kind.REMOTE: (_REMOTE_LOST,),
        Kind.MISSING_FILE: (
            r"failed to open .*No such file",
            r"failed to open GGUF file",
        ),
        Kind.UNKNOWN_ARCHITECTURE: (
            r"unknown model architecture",
            r"unknown (?:pre-)?tokenizer",
        ),
        Kind.BAD_MODEL_FILE: (
            r"invalid magic",
            r"bad_alloc error while reading",
            r"GGUF file is version|GGUFv1 is no longer supported|bad GGUF version",
            r"failed to read (?:magic|header|key-value pairs|tensor)",
            r"corrupted",
            r"tensor '[^']*' not found|missing tensor",
            r"key not found in model",
            r"tensor '[^']*' has (?:wrong shape|invalid)",
            r"wrong number of tensors",
            r"cannot find tokenizer",
        ),
        Kind.OUT_OF_MEMORY: (
            r"(?i:out.?of.?(?:device.?|host.?)?memory|insufficient memory)",
            r"Cannot allocate memory",
            r"unable to allocate \S+ buffer",
            r"failed to allocate (?:\w+ ){0,3}(?:buffers?|memory)",
            r"Device memory allocation of size",
            r"(?:CUBLAS|HIPBLAS)_STATUS_ALLOC_FAILED|the resource allocation failed",
            r"bad_alloc|^MemoryError",
            r"GGML_ASSERT\(ctx->mem_buffer != NULL\)",
        ),
        Kind.SHORTAGE: (
            r"Resource temporarily unavailable",
            r"thread constructor failed|Thread creation failed|can't start new thread",
            r"pthread_create\b.* failed|failed .*\bpthread_create",
        ),
        Kind.CRASH: (
            r"(?:CUDA|ROCm|MUSA|SYCL|HIP) error: ",
            r"ErrorDeviceLost",
            r"terminat\w+ (?:called|due to)",
            r"\.(?:cpp|cu|c):\d+: (?!\w+ error$)",
        ),
    }.items()
)


def explain(exit: int | None, lines: Sequence[str]) -> Cause:
    """Why a child could not be started, from its exit status (as Python gives it; None while it
    runs) and its last log lines. No request can have influenced these yet."""
    return _finished(exit, lines) or _from_lines(lines) or _from_exit(exit, lines)


def explain_by_status(exit: int | None, lines: Sequence[str]) -> Cause:
    """Why a program ended whose words mean nothing to us: by its exit status. If there are `lines`,
    the last words among them are told, too."""
    return _finished(exit, ()) or _from_exit(exit, lines)


def explain_death(exit: int | None, heard: Iterable[Heard], now: float) -> Cause:
    """Why a child died that had been ready.

    By then its log may hold words of clients, even with line breaks, clocks and levels. So the exit
    status counts. If the child aborted, the last line that only an abort prints counts as well:
    after an abort, no client's words can follow.
    """
    lines = [line.text for line in heard if now - line.at <= _LAST_SECONDS]
    abort = _from_abort(lines) if exit in _ABORTS else None
    # The last lines are left out: they may be one client's words, and all clients would read them.
    return abort or _finished(exit, lines) or _from_exit(exit, [])


# Seconds: the dump of a dying process's memory may take a while.
_LAST_SECONDS = 10.0

# By signal 6, directly or below a shell, or in the way of Windows. All other ends come from
# outside, or a request caused them so suddenly that the engine had no time to say anything.
_ABORTS = {-6, 128 + 6, 3, 0xC000_0409}


def _from_abort(lines: Sequence[str]) -> Cause | None:
    """The cause in the lines that an aborting engine prints. Of lines that look like an abort, only
    the last is certainly the engine's own."""
    messages = [split_line(line)[1] for line in lines]
    last = next((message for message in reversed(messages) if _ABORT.match(message)), None)
    if last is None:
        return None
    if _NOT_RELOADED.search(last):
        return _from_lines(lines)
    if re.search(_REMOTE_LOST, last):
        return Cause(Kind.REMOTE, clean(last))
    ran_out = [message for message in messages if _RAN_OUT.fullmatch(clean(message))]
    reasons = [message for message in messages if _REASON.match(clean(message))]
    is_reason = bool(ran_out and reasons) and reasons[-1] == ran_out[-1]
    if _ABORT_FOR_MEMORY.search(last) or (is_reason and _BARE_ABORT.search(last)):
        hits = ran_out or [last]
        cause = _out_of_memory(hits, messages[messages.index(hits[0]) :])
        # A single request can ask for too much of the host's memory.
        return evolve(cause, proven="std::bad_alloc" not in last)
    if _ABORT_FOR_THREADS.search(last):
        return _out_of_threads(last)
    is_bare = reasons and _BARE_ABORT.search(last)
    return Cause(Kind.CRASH, clean(reasons[-1] if is_bare else last))


_ABORT = re.compile(
    r"(?:terminate called|libc\+\+abi: terminating)\b"
    r"|\S+\.(?:cpp|cuh?|c|hpp|h|mm?):[0-9]+: "
    r"|(?:malloc|calloc|realloc|free|munmap_chunk)\(\): |double free|corrupted |\*\*\* |Fatal "
    r"|.*\bAssertion `"
)
_NOT_RELOADED = re.compile(r":[0-9]+: failed to reload model after sleeping$")
_BARE_ABORT = re.compile(r":[0-9]+: \w+ error$")
_REASON = re.compile(r"(?:CUDA|ROCm|HIP|MUSA) error: |Insufficient Memory \(")
_ABORT_FOR_MEMORY = re.compile(
    r"an instance of '(?:std::bad_alloc|vk::OutOf(?:Device|Host)MemoryError)'$"
    r"|of type (?:std::bad_alloc: std::bad_alloc|vk::OutOf(?:Device|Host)MemoryError: [\w: ]+)$"
    r"|GGML_ASSERT\(ctx->mem_buffer != NULL\) failed$"
)
_ABORT_FOR_THREADS = re.compile(r"\bstd::system_error\b")


def _finished(exit: int | None, lines: Sequence[str]) -> Cause | None:
    if exit == 0:
        return Cause(Kind.FINISHED, "finished by itself")
    # In child mode the engine ends when its parent seems to be gone, with exit status 1.
    if exit == 1 and any(clean(split_line(line)[1]).startswith(_ORPHANED) for line in lines[-3:]):
        return Cause(Kind.FINISHED, _ORPHANED)
    return None


_ORPHANED = "EOF on stdin detected"


def _from_lines(lines: Sequence[str]) -> Cause | None:
    messages = _complaints(lines)
    found = [(kind, message) for message in messages if (kind := symptom(message))]
    for kind, _ in _SIGNS:
        hits = [message for symptom_kind, message in found if symptom_kind is kind]
        if hits and kind is Kind.OUT_OF_MEMORY:
            return _out_of_memory(hits, messages[messages.index(hits[0]) :])
        if hits and kind is Kind.SHORTAGE:
            return _out_of_threads(hits[0])
        if hits:
            return Cause(kind, clean(hits[0]))  # the other messages follow from this one
    return None


def _out_of_threads(message: str) -> Cause:
    return Cause(Kind.SHORTAGE, f"it could have no more threads: {clean(message)}")


def _complaints(lines: Sequence[str]) -> list[str]:
    """The messages that can hold a cause: since the engine last overcame one, and not chatter.

    Debug and info lines are left out because they may quote a prompt, which may say anything.
    """
    complaints: list[str] = []
    for line in lines:
        level, message = split_line(line)
        if _OVERCOME in message:
            complaints.clear()
        elif level not in ("debug", "info"):
            complaints.append(message)
    return complaints


_OVERCOME = "retrying without pipeline parallelism"


def _out_of_memory(hits: Sequence[str], since: Sequence[str]) -> Cause:
    """The cause, with what the memory was for, which the engine says last, and how much was needed,
    which a backend says before that."""
    story = "\n".join(since)
    where = next((where for where, sign in _PURPOSES if sign.search(story)), Where.UNKNOWN)
    purpose = clean(hits[-1])
    amounts = [clean(message) for message in hits if _AMOUNT.search(message)]
    if amounts and amounts[-1] != purpose:
        return Cause(Kind.OUT_OF_MEMORY, f"{purpose}: {amounts[-1]}", where)
    return Cause(Kind.OUT_OF_MEMORY, purpose, where)


_AMOUNT = re.compile(r"[0-9] ?Mi?B\b|memory allocation of size")
_PURPOSES = (
    (Where.KV, re.compile(r"(?:kv|rs)[ _]cache")),
    (Where.COMPUTE, re.compile(r"(?i:compute|command ?buffer)|decode\(\) failed|function alloc\b")),
    (Where.WEIGHTS, re.compile(r"error loading model: ")),
)


def _from_exit(exit: int | None, lines: Sequence[str]) -> Cause:
    if exit is None:
        return Cause(Kind.UNKNOWN, _last_words(lines) or "said nothing")
    kind, ending = _read_exit(exit)
    if kind is Kind.KILLED:
        # The child was doing its ordinary work, and lines about that explain nothing. Nor do
        # warnings: llama-server prints one at every start without an API key.
        lines = [line for line in lines if _is_error(*split_line(line))]
    last = _last_words(lines)
    return Cause(kind, f"{ending}; its last words: {last}" if last else ending)


def _read_exit(exit: int) -> tuple[Kind, str]:
    if exit in (126, 127):  # a shell's exit status if it cannot start a program
        return Kind.ENGINE_UNUSABLE, f"exited with {exit}"
    if exit >= 0x8000_0000:  # Windows: an exception's number
        missing_library = exit in (0xC000_0135, 0xC000_0139, 0xC000_007B)
        return (Kind.ENGINE_UNUSABLE if missing_library else Kind.CRASH), f"ended with 0x{exit:08X}"
    if exit < 0 or 128 < exit <= 192:  # a shell between us adds 128 to the signal
        return _read_signal(-exit if exit < 0 else exit - 128)
    return Kind.UNKNOWN, f"exited with {exit}"


def _read_signal(number: int) -> tuple[Kind, str]:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return Kind.KILLED, f"killed by signal {number}"
    kind, hint = _SIGNALS.get(name, (Kind.KILLED, ""))
    return kind, f"killed by {name}{hint}"


_SIGNALS = {
    "SIGKILL": (Kind.KILLED, " (the kernel's, if memory ran out)"),
    "SIGILL": (Kind.ENGINE_UNUSABLE, " (this engine was built for another CPU)"),
    "SIGBUS": (Kind.CRASH, " (the model file may have been cut short while it was mapped)"),
    "SIGSEGV": (Kind.CRASH, ""),
    "SIGABRT": (Kind.CRASH, ""),
    "SIGFPE": (Kind.CRASH, ""),
    "SIGTRAP": (Kind.CRASH, ""),
    "SIGSYS": (Kind.CRASH, ""),
}


def _last_words(lines: Sequence[str]) -> str:
    """The last error that explains something, or else the last line for people."""
    split = [split_line(line) for line in lines if line.strip() and not line.startswith(_DATA)]
    errors = [message for level, message in split if _is_error(level, message)]
    telling = [message for message in errors if not _FOREGONE.search(message)]
    for messages in (telling, errors, [message for _, message in split]):
        if messages:
            return clean(messages[-1])
    return ""


_DATA = ("cmd_child_to_router:", "{")


def _is_error(level: Level | None, message: str) -> bool:
    return level == "error" or (level is None and ("error" in message or "failed" in message))


_FOREGONE = re.compile(r"exiting due to|failed to (?:load model|create[_ ](?:llama_)?context)")


def verdict_on_reply(status: int, message: str, size: int) -> Verdict:
    """What an engine's error with this message means, for a request with a body of `size` bytes.

    Only a whole message counts. A part of one may be a quotation of a client's words, and no list
    of such messages would ever be complete.
    """
    if status in (400, 500) and message in _UNPREPARED:
        return Verdict.TOO_LARGE if size >= _LARGE else Verdict.OUT_OF_MEMORY
    if status >= 500 and _RAN_OUT.fullmatch(message):
        return Verdict.OUT_OF_MEMORY
    return Verdict.ITS_OWN


# llama-server says no more than this if memory runs out while it reads and prepares a request, not
# while it works on it. It says the second if there was not even memory to write the error.
_UNPREPARED = ("std::bad_alloc", "Internal Server Error")
_LARGE = 1 << 20

# All whole messages that backends are known to print when memory runs out.
_RAN_OUT = re.compile(
    r"(?:decode\(\) failed: )?(?:"
    + "|".join(
        (
            r"std::bad_alloc",
            r"MemoryError",
            r"(?:CUDA|ROCm|HIP|MUSA) error: out of memory",
            r"(?:allocating [0-9.]+ Mi?B on device [0-9]+: )?"
            r"(?:cuda|hip|musa)Malloc failed: out of memory",
            r"vk::[\w:]+: ErrorOutOf(?:Device|Host)Memory",
            r"(?:ggml_vulkan: )?Device memory allocation of size [0-9]+ failed\.?",
            r"(?:ggml_vulkan: )?Requested buffer size exceeds [\w ]+: ErrorOutOfDeviceMemory",
            r"Insufficient Memory \([0-9a-f]+:kIOGPUCommandBufferCallbackErrorOutOfMemory\)",
            r"insufficient memory \(attempted to allocate +[0-9.]+ MB\)",
            r"failed to allocate \w+ buffer of size [0-9]+",
            r"failed to allocate buffer for \w+ cache",
            r"failed to allocate compute (?:[pt][pg] )?buffers",
        )
    )
    + ")"
)
