"""A process is known by its pid and its start time, and never taken for another one."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from llamasup.processes.identity import Identity
from tests.harness import (
    oddly_named,
)


def test_a_process_may_have_a_name_that_is_no_text() -> None:
    with oddly_named() as process:
        assert (found := Identity.of(process.pid)) is not None
        assert found.alive()


def test_a_process_that_may_not_be_signalled_any_more_is_as_good_as_gone(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    process = Identity.of(sleeper.pid)
    assert process is not None
    with monkeypatch.context() as macos:
        macos.setattr(os, "killpg", refuse)
        macos.setattr(os, "kill", refuse)
        process.signal(signal.SIGTERM)
    assert process.alive()


def test_a_process_is_another_one_with_another_start_time(
    sleeper: subprocess.Popen[bytes],
) -> None:
    process = Identity.of(sleeper.pid)
    assert process is not None
    assert process.alive()
    stranger = Identity(sleeper.pid, "1")
    assert not stranger.alive()
    stranger.signal(signal.SIGKILL)
    assert process.alive()
    process.signal(signal.SIGKILL)
    sleeper.wait()
    assert Identity.of(sleeper.pid) is None


def test_a_mark_names_the_process_that_it_was_made_of(sleeper: subprocess.Popen[bytes]) -> None:
    process = Identity.of(sleeper.pid)
    assert process is not None
    assert process.mark == f"child-{sleeper.pid}-{process.started}"
    assert Identity.marked(process.mark) == process
