"""The kernel says whether it is the child that listens on its port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llamasup.children.listening import Listener, listener, listening

TABLE = """\
  sl  local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode
   0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0  1000        0 41 1 0 100 0
   1: 0100007F:1F90 0100007F:C350 01 0:0 0:0 0     0        0 42 1 0 100 0
  12: 00000000:1F91 00000000:0000 0A 0:0 0:0 0     7        0 43 1 0 100 0
"""

LISTENS = "import socket, sys; s = socket.create_server(('127.0.0.1', 0))"
TELLS = f"{LISTENS}; print(s.getsockname()[1], flush=True); sys.stdin.read()"


def test_of_all_sockets_those_that_listen_on_the_port_are_found() -> None:
    assert listening(TABLE, 8080) == [(1000, "41")]
    assert listening(TABLE, 8081) == [(7, "43")]
    assert listening(TABLE, 8082) == []


def test_a_child_that_listens_itself_or_by_a_process_that_it_started_is_recognised() -> None:
    shell = ["/bin/sh", "-c", f'"{sys.executable}" -c "{TELLS}"; true']
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert listener(port, process.pid) is Listener.CHILD
        assert listener(port, os.getpid()) is Listener.CHILD  # the child of a child
        process.communicate()


def test_another_program_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE) as child,
        socket.create_server(("127.0.0.1", 0)) as taken,
    ):
        port = taken.getsockname()[1]
        assert listener(port, child.pid) is Listener.ANOTHER
        child.communicate()


def test_another_users_program_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    stranger = TABLE.replace("  1000  ", f"  {os.geteuid() + 1}  ")
    (tmp_path / "net" / "tcp").write_text(stranger)
    assert listener(8080, os.getpid(), tmp_path) is Listener.ANOTHER_USER


def test_where_the_kernel_does_not_say_it_is_taken_for_the_child(tmp_path: Path) -> None:
    assert listener(8080, os.getpid(), tmp_path) is Listener.CHILD
