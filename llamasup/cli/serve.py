"""`llamasup serve`: the main job."""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from llamasup import __version__, logs
from llamasup.cli import options
from llamasup.config.addresses import Address, from_here, url_of
from llamasup.config.schema import Config
from llamasup.errors import OperatorError
from llamasup.models.demo import DEMO
from llamasup.models.headers import defect_of
from llamasup.models.library import Look
from llamasup.shortages import USUAL, have_descriptors, most_connections

_M_ARENA_MAX = -8
_M_MMAP_THRESHOLD = -3
_LARGE = 128 << 10


def add_to(commands: Any) -> None:
    """Register the command."""
    parser = commands.add_parser(
        "serve",
        help="serve the configured models on one port",
        description="Serve the configured models on one port; without any, a demo model.",
    )
    options.add_to(parser)
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """Serve until told to stop. Returns 0 after a clean stop."""
    from llamasup.serve import serve  # it imports Hypercorn, for which other commands need not wait

    source = options.source(parsed)
    config = source.load()
    refuse_unusable(parsed.model)
    serves = False
    with logs.flowing(config.log.level, config.log.format) as say:

        def announce(served: Config, addresses: list[Address], look: Look) -> None:
            nonlocal serves
            serves = True
            lines = greeting(served, addresses, str(source.file or "none"), look)
            if served.models and not config.models:
                lines += how_to_go_on(addresses)
            say("\n".join(map(logs.escaped, lines)))

        def heed(number: int, _: object) -> None:
            """End the process at the signal if it does not serve yet. Later signals come here only
            when it is ending anyway."""
            if not serves:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        heeded = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup's
            heeded.append(signal.SIGHUP)
        for number in heeded:
            signal.signal(number, heed)
        _keep_memory_flat()
        have_descriptors(config.server.max_connections)
        trio.run(serve, config, source, os.environ, announce)
        for number in heeded:  # now they would only change the exit status
            signal.signal(number, signal.SIG_IGN)
    return 0


def refuse_unusable(models: Iterable[str]) -> None:
    """Raise OperatorError for files of the command line that cannot be models.

    An operator who types a name sees the error at once. Files that a configuration names are not
    checked here: they may come later, with a disk that is mounted.
    """
    if slips := [f"--model {path}: {why}" for path in models if (why := defect_of(Path(path)))]:
        raise OperatorError("\n".join(slips))


def _keep_memory_flat() -> None:
    """Set up the memory allocators for a process that runs for months."""
    # Imported modules stay for ever. Once they are frozen, the garbage collector no longer counts
    # them when it decides whether a collection is worth while, and so collects garbage sooner.
    gc.collect()
    gc.freeze()
    # glibc gives each thread a heap of its own, and keeps it when the thread has ended. So there is
    # one heap. After a large block was freed, glibc takes blocks of that size from the heap, where
    # they leave holes. So the threshold for blocks straight from the system is fixed. (Other C
    # libraries have no mallopt, or one that does nothing.)
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _LARGE)


def greeting(config: Config, addresses: list[Address], file: str, look: Look) -> list[str]:
    """The lines that the operator sees when llamasup is ready for requests."""
    lines = [
        f"llamasup {__version__} listens on {', '.join(map(_url, addresses))}",
        f"  configuration: {file}",
    ]
    if config.server.max_connections == "auto" and (most := most_connections("auto")) < USUAL:
        lines.append(f"  connections: {most} at once, for the limit on open files allows no more")
    if config.keys:
        lines.append(f"  keys: {', '.join(config.keys)}; nobody else is let in")
    if config.models:
        lines.append(f"  models: {', '.join(config.models)}")
    for folder in config.discover.folders:
        if why := look.unreadable.get(folder):
            lines.append(f"  models in {folder}: it cannot be read ({why})")
        else:
            found = look.found[folder]
            lines.append(f"  models in {folder}: {found or 'none yet; put GGUF files there'}")
    return lines


def how_to_go_on(addresses: list[Address]) -> list[str]:
    """More lines if only the demo model is served: how to use it, and how to serve others."""
    return [
        "",
        f'No model is configured, so the built-in "{DEMO}" model is served: it recites one',
        "fixed text, through the real llama.cpp, to show that everything works. Ask it:",
        "",
        f"  curl {_url(addresses[0])}/v1/chat/completions \\",
        """    -d '{"messages": [{"role": "user", "content": "Hello!"}]}'""",
        "",
        "Serve a model of your own, or all in a folder:",
        "",
        "  llamasup serve --model path/to/model.gguf",
        "  llamasup serve --models-dir path/to/models",
        "",
    ]


def _url(address: Address) -> str:
    return url_of(from_here(address))
