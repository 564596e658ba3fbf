"""The engine from PyPI as a program with llama-server's command line: a child like any other.

`python -m llamasup.engine.embedded --model x.gguf --host x.sock` serves with `xllamacpp`, which is
the real llama.cpp server as a library. This module is the program for it: with llama-server's exit
statuses, and those of its options that a supervised model needs. It imports little, to start fast.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import select
import signal
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Settings = Mapping[str, object]
"""What to set in `xllamacpp.CommonParams`. A dot in a name leads to a field of a field."""


class CannotServe(Exception):
    """Nothing can be served with this command line; `str(error)` says why in llama-server's
    words."""


class Option(NamedTuple):
    """One row of the table below."""

    names: str
    value: str  # what --help calls its value; empty if it takes none
    settings: Callable[[str], Settings]
    help: str


def to(field: str, read: Callable[[str], object]) -> Callable[[str], Settings]:
    return lambda value: {field: read(value)}


def always(**settings: object) -> Callable[[str], Settings]:
    return lambda _: settings


def int32(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an integer") from None
    if number.bit_length() > 31:
        raise ValueError(f"{text} is out of range")
    return number


def layers(text: str) -> int:
    return {"auto": -1, "all": -2}.get(text) or int32(text)


def listed(text: str) -> list[str]:
    return text.split(",")


def named(text: str) -> set[str]:
    return set(listed(text))


def one_of(**meanings: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if text not in meanings:
            raise ValueError(f"{text!r} is not one of {', '.join(meanings)}")
        return meanings[text]

    return read


# The numbers are the enums' of llama.h and ggml.h.
on_or_off = one_of(on=1, off=0)
attention = one_of(on=1, off=0, auto=-1)
pooling = one_of(none=0, mean=1, cls=2, last=3, rank=4)
load_mode = one_of(**{"auto": -1, "none": 0, "mmap": 1, "mlock": 2, "mmap+mlock": 3, "dio": 4})
cache_type = one_of(f32=0, f16=1, bf16=30, q8_0=8, q4_0=2, q4_1=3, iq4_nl=20, q5_0=6, q5_1=7)

# fmt: off
OPTIONS = (
    Option("-m --model", "FILE", to("model.path", str), "GGUF file to serve"),
    Option("-a --alias", "NAMES", to("model_alias", named), "what answers call the model"),
    Option("--mmproj", "FILE", to("mmproj.path", str), "multimodal projector"),
    Option("--chat-template", "TEMPLATE", to("chat_template", str), "instead of the model's own"),
    Option("--jinja", "", always(use_jinja=True), "render templates by Jinja (default)"),
    Option("--no-jinja", "", always(use_jinja=False), "render well-known templates only"),

    Option("--host", "HOST", to("hostnames", listed),
           "IP addresses to listen on, or UNIX socket paths ending in .sock"),
    Option("--port", "N", to("port", int32), "port to listen on, 0 for any (default: 8080)"),
    Option("--threads-http", "N", to("n_threads_http", int32), "threads that serve HTTP"),
    Option("--slots", "", always(endpoint_slots=True), "serve /slots (default)"),
    Option("--no-slots", "", always(endpoint_slots=False), "do not serve /slots"),
    Option("--metrics", "", always(endpoint_metrics=True), "serve /metrics"),
    Option("--props", "", always(endpoint_props=True), "let POST /props change properties"),
    Option("--ui --webui", "", always(ui=True), "serve llama.cpp's web page (default)"),
    Option("--no-ui --no-webui", "", always(ui=False), "do not serve it"),

    Option("-c --ctx-size", "N", to("n_ctx", int32), "context size, 0 for the model's (default)"),
    Option("-np --parallel", "N", to("n_parallel", int32), "slots, -1 for auto (default)"),
    Option("-n --predict --n-predict", "N", to("n_predict", int32), "tokens to answer at most"),
    Option("-ctk --cache-type-k", "TYPE", to("cache_type_k", cache_type), "KV cache type for K"),
    Option("-ctv --cache-type-v", "TYPE", to("cache_type_v", cache_type), "KV cache type for V"),
    Option("-kvu --kv-unified", "", always(kv_unified=True), "one KV cache for all slots"),
    Option("-no-kvu --no-kv-unified", "", always(kv_unified=False), "a KV cache for every slot"),
    Option("-cram --cache-ram", "MiB", to("cache_ram_mib", int32), "prompt cache in host memory"),

    Option("-ngl --gpu-layers --n-gpu-layers", "N", to("n_gpu_layers", layers),
           "layers on the GPU, auto (default) or all"),
    Option("-t --threads", "N", to("cpuparams.n_threads", int32), "threads that compute"),
    Option("-b --batch-size", "N", to("n_batch", int32), "logical batch size"),
    Option("-ub --ubatch-size", "N", to("n_ubatch", int32), "physical batch size"),
    Option("-fa --flash-attn", "on|off|auto", to("flash_attn_type", attention), "flash attention"),
    Option("-fit --fit", "on|off", to("fit_params", on_or_off), "fit what is unset to the memory"),
    Option("-lm --load-mode", "MODE", to("load_mode", load_mode),
           "auto (default), none, mmap, mlock, mmap+mlock or dio"),
    Option("--mmap", "", always(load_mode=1), "the same as --load-mode mmap"),
    Option("--no-mmap", "", always(load_mode=0), "the same as --load-mode none"),
    Option("--warmup", "", always(warmup=True), "run once before serving (default)"),
    Option("--no-warmup", "", always(warmup=False), "serve without that"),

    Option("--embeddings --embedding", "", always(embedding=True), "serve embeddings only"),
    Option("--rerank --reranking", "", always(embedding=True, pooling_type=4), "serve reranking"),
    Option("--pooling", "KIND", to("pooling_type", pooling), "none, mean, cls, last or rank"),

    Option("-lv --verbosity --log-verbosity", "N", to("verbosity", int32), "0 to 5 (default: 3)"),
)
# fmt: on

LIKE_LLAMA_SERVER: Settings = {"port": 8080, "n_parallel": -1}
"""Where `xllamacpp` has other defaults than llama-server."""


def main(arguments: Sequence[str]) -> int | str:
    """Do what the command line says; returns what `sys.exit` makes an exit status of."""
    try:
        if {"-h", "--help"} & set(arguments):
            print(usage())
        elif "--version" in arguments:
            engine = imported_engine()
            target = engine.BUILD_INFO["build_target"]
            print(f"version: xllamacpp {engine.__version__} ({target})")
        else:
            return serve(settings_from(arguments))
    except CannotServe as error:
        return str(error)
    return 0


def usage() -> str:
    left = (f"{', '.join(option.names.split())} {option.value}" for option in OPTIONS)
    right = (option.help for option in OPTIONS)
    return "\n".join(f"{names:<40} {help}" for names, help in zip(left, right, strict=True))


def settings_from(arguments: Sequence[str]) -> Settings:
    """What the command line asks for; later options win. Raises `CannotServe`."""
    options = {name: option for option in OPTIONS for name in option.names.split()}
    settings = dict(LIKE_LLAMA_SERVER)
    rest = iter(arguments)
    for name in rest:
        if name not in options:
            raise CannotServe(f"error: invalid argument: {name}")
        option = options[name]
        try:
            settings |= option.settings(next(rest) if option.value else "")
        except StopIteration:
            raise CannotServe(complaint(name, "expected value for argument")) from None
        except ValueError as error:
            raise CannotServe(complaint(name, str(error))) from None
    if "model.path" not in settings:
        raise CannotServe("error: --model is missing")
    return settings


def complaint(name: str, reason: str) -> str:
    return f'error while handling argument "{name}": {reason}'


def imported_engine() -> Any:
    try:
        return importlib.import_module("xllamacpp")
    except ImportError as error:
        raise CannotServe(f'error: {error}; try: pip install "llamasup[engine]"') from error


def configure(parameters: Any, settings: Settings) -> None:
    for name, value in settings.items():
        path, _, field = name.rpartition(".")
        setattr(getattr(parameters, path) if path else parameters, field, value)


def serve(settings: Settings) -> int:
    """Load the model and serve it; returns only if that fails, with the exit status."""
    engine = imported_engine()
    parameters = engine.CommonParams()
    configure(parameters, settings)

    # While xllamacpp loads it holds the GIL, so no handler or thread in Python could end this
    # process. The default actions of signals can.
    for ending in (signal.SIGTERM, signal.SIGINT, signal.SIGIO):
        signal.signal(ending, signal.SIG_DFL)
    held = held_stdin()
    for file in held:
        signal_the_end_of(file)
    try:
        _server = engine.Server(parameters)  # it serves as long as this reference exists
    except RuntimeError:
        return 1  # llama.cpp has logged why
    wait_for_an_end(held)
    os._exit(0)  # at once: the server's destructor would wait for its open streams


def held_stdin() -> list[int]:
    """Stdin, if it is a pipe or a socket. The supervisor holds its other end and never writes to
    it, so it becomes readable only when the supervisor is gone."""
    if sys.stdin is None:
        return []
    mode = os.fstat(0).st_mode
    return [0] if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else []


def signal_the_end_of(file: int) -> None:
    """Let the kernel send SIGIO at the end of stdin, which ends this process even while it loads
    (not on macOS)."""
    fcntl.fcntl(file, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_ASYNC)


def wait_for_an_end(held: list[int]) -> None:
    """Wait for SIGTERM, SIGINT or the end of a held file."""
    # The wake-up file works for any thread that the kernel picks for a signal. `signal.pause`
    # sleeps on if that is another thread, or if the signal comes just before the call.
    signaled, wake_up = os.pipe()
    os.set_blocking(wake_up, False)
    signal.set_wakeup_fd(wake_up)
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: None)
    select.select([signaled, *held], [], [])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
