"""The command line: one file for each command."""

from __future__ import annotations

import argparse
import io
import signal
import sys
from collections.abc import Sequence

from llamasup import __version__

WRONG = 2
"""The exit status for everything that the operator must put right."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    # Until there is something to close, Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from llamasup.cli import check, key, models, ping, serve
    from llamasup.errors import LlamasupError

    parser = argparse.ArgumentParser(
        prog="llamasup",
        description="Start and stop llama-servers as requests need them, and answer for all of them"
        " on one port.",
    )
    parser.add_argument("--version", action="version", version=f"llamasup {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (serve, check, models, key, ping):
        command.add_to(commands)
    parsed = parser.parse_args(arguments)
    # Names of files need not be valid text. (stderr escapes by itself what it cannot write.)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = parsed.run(parsed)
    except LlamasupError as error:
        print(error, file=sys.stderr)
        return WRONG
    return status
