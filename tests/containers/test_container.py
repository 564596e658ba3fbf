"""The container of `examples/Containerfile` serves, as a user without rights, and ends well.

The image is built on the one that $LLAMASUP_TEST_BASE_IMAGE names, else on the one in the file.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.harness import REPOSITORY, counting_model

PODMAN = os.environ.get("LLAMASUP_TEST_PODMAN", "podman")
BASE = os.environ.get("LLAMASUP_TEST_BASE_IMAGE", "")
IMAGE = "localhost/llamasup-test"
PORT = 18080
PATIENCE = 30.0
CONFINED = [
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges"),
]


def podman(*words: str | Path, check: bool = True) -> str:
    # Its monitor leaves a file "oom" in the current folder when memory ran out in a container.
    with tempfile.TemporaryDirectory(prefix="llamasup-test-", ignore_cleanup_errors=True) as folder:
        done = subprocess.run(
            [PODMAN, *words], cwd=folder, capture_output=True, text=True, check=False
        )
    assert not check or done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).strip()


@pytest.fixture(scope="module")
def image() -> str:
    base = ["--build-arg", f"BASE={BASE}"] if BASE else []
    podman(
        "build", "-q", "-t", IMAGE, *base, "-f", REPOSITORY / "examples/Containerfile", REPOSITORY
    )
    return IMAGE


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that everybody may read: in the container we are somebody else."""
    folder = tmp_path_factory.mktemp("models")
    counting_model(folder / "count.gguf").chmod(0o644)
    for above in (folder, *folder.parents):
        with suppress(PermissionError):
            above.chmod(above.stat().st_mode | 0o055)
    return folder


@contextmanager
def running(image: str, models: Path, *options: str) -> Iterator[str]:
    """A container that serves these models on our port."""
    published = ("-p", f"127.0.0.1:{PORT}:8080", "-v", f"{models}:/models:ro")
    name = podman("run", "-d", *published, *options, image).splitlines()[-1]
    try:
        yield name
    finally:
        podman("rm", "-f", "-t", "0", name)


def ask(tokens: int) -> Any:
    """One chat, waited for."""
    body = {"model": "count", "max_tokens": tokens, "messages": [{"role": "user", "content": "x"}]}
    asked = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/chat/completions", json.dumps(body).encode()
    )
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE) as reply:
                return json.load(reply)["choices"][0]["message"]["content"]
        except (ConnectionError, urllib.error.URLError):
            assert time.monotonic() < deadline, "the container does not listen"
            time.sleep(0.1)


def test_it_serves_as_any_user_without_a_folder_to_write_to(image: str, models: Path) -> None:
    with running(image, models, *CONFINED) as container:
        assert ask(5) == " 0 1 2 3 4"
        assert podman("exec", container, "id", "-u") == "10001"
        podman("stop", "-t", "20", container)
        assert podman("inspect", "-f", "{{.State.ExitCode}}", container) == "0"
        log = podman("logs", container)
        assert "Traceback" not in log
        assert "WARNING" not in log


def test_an_engine_that_the_kernel_kills_for_memory_is_told_and_replaced(
    image: str, models: Path
) -> None:
    """A real limit, and the kernel's own killer: one rung lower, and served on."""
    with running(image, models, "--memory", "400m", "--memory-swap", "400m") as container:
        assert ask(3) == " 0 1 2"
        hog = "x = bytearray(1 << 30); x[::4096] = b'x' * len(x[::4096])"
        podman("exec", container, "python3", "-c", hog, check=False)
        assert ask(5) == " 0 1 2 3 4"
        status = podman("inspect", "-f", "{{.State.Running}}", container)
        assert status == "true"
