"""Several machines behind one name: containers on a network with its own DNS, under load.

One address dies, one comes back, one is drained; the clients of the llamasup in front lose nothing.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.containers.test_container import image, models, podman
from tests.harness import REPOSITORY

__all__ = ["image", "models"]

PORT = 18081
NETWORK = f"llamasup-test-{os.getpid()}"
ALIAS = ("--network", NETWORK, "--network-alias", "gpus")
FAKE = (
    *("/fakes/llama_server.py", "--host", "0.0.0.0", "--port", "8080", "--parallel", "4"),
    *("--model", "count.gguf", "--fake-first-byte-delay", "0.1"),
)
CONFIG = """
[[endpoints]]
name = "gpus"
url = "dns+http://gpus:8080"
cold_start_timeout = "60s"
"""
PATIENCE = 60.0


@pytest.fixture
def network() -> Iterator[str]:
    podman("network", "create", NETWORK)
    try:
        yield NETWORK
    finally:
        podman("network", "rm", "-f", NETWORK, check=False)


@contextmanager
def container(*words: str | Path) -> Iterator[str]:
    """A container, removed at the end of the block."""
    said = podman("run", "-d", *words).split()  # with warnings about the machine
    name = next(word for word in said if re.fullmatch("[0-9a-f]{64}", word))
    try:
        yield name
    finally:
        podman("rm", "-f", "-t", "0", name, check=False)


def address(name: str) -> str:
    """Its address on the network, which may be another one after a restart."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return podman("inspect", "-f", form, name).split()[0]


class Load:
    """Clients that ask without a pause, and what they got: when, from whom, and how."""

    def __init__(self, clients: int) -> None:
        self.answers: list[tuple[float, str, object]] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def losses(self) -> list[object]:
        return [what for _, _, what in self.answers if what != " 0 1"]

    def served_by(self, ip: str, since: float) -> bool:
        return any(at > since and ip in who for at, who, _ in self.answers)

    def until_served_by(self, ip: str) -> None:
        since, deadline = time.monotonic(), time.monotonic() + PATIENCE
        while not self.served_by(ip, since):
            assert time.monotonic() < deadline, f"{ip} got no request"
            time.sleep(0.05)

    def until_more_answers(self) -> None:
        """Wait until every client has met whoever is there now, and more than once."""
        wanted = len(self.answers) + 3 * len(self._threads)
        deadline = time.monotonic() + PATIENCE
        while len(self.answers) < wanted:
            assert time.monotonic() < deadline, "the clients get no answers any more"
            time.sleep(0.05)

    def _ask_on(self) -> None:
        while not self._stop.is_set():
            who, what = ask()
            self.answers.append((time.monotonic(), who, what))


def ask() -> tuple[str, object]:
    """Who answered, and what."""
    body = {"model": "count", "max_tokens": 2, "messages": [{"role": "user", "content": "x"}]}
    asked = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as reply:
            who = reply.headers["X-Llamasup-Instance"]
            return who, json.load(reply)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        return "", f"{error.code} {error.read()[:300]!r}"
    except OSError as error:
        return "", repr(error)


def test_one_address_dies_comes_back_and_is_drained_and_nothing_is_lost(
    image: str, models: Path, network: str, tmp_path: Path
) -> None:
    config = tmp_path / "llamasup.toml"
    config.write_text(CONFIG)
    for path in (config, tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    fakes = ("-v", f"{REPOSITORY}/tests/fakes:/fakes:ro", "--entrypoint", "python3", image, *FAKE)
    front = ("--network", network, "-p", f"127.0.0.1:{PORT}:8080", "-v", f"{config}:/llamasup.toml")
    with (
        container(*ALIAS, *fakes) as dies,
        container(*ALIAS, *fakes),
        container(*ALIAS, "-v", f"{models}:/models:ro", image) as drains,
        container(*front, image, "/llamasup.toml") as outer,
    ):
        deadline = time.monotonic() + PATIENCE
        while ask()[1] != " 0 1":
            assert time.monotonic() < deadline, podman("logs", outer)
            time.sleep(0.2)
        with Load(14) as load:
            for name in (dies, drains):
                load.until_served_by(address(name))
            podman("kill", dies)
            load.until_more_answers()
            podman("start", dies)
            load.until_served_by(address(dies))
            podman("stop", "-t", "20", drains)
            load.until_more_answers()
            podman("start", drains)
            load.until_served_by(address(drains))
        assert load.losses == [], podman("logs", outer)
        assert len(load.answers) > 50
