"""`llamasup ping`, as operators run it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import trio

from tests.endpoints.elsewhere import Elsewhere, free_port
from tests.harness import LLAMASUP, REPOSITORY, running


async def pinged(file: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return await trio.run_process(
        [*LLAMASUP, "ping", *words, str(file)],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
        env=environ,
    )


def configured(folder: Path, *urls: str, listen: str = "127.0.0.1:1") -> Path:
    entries = [f'[[endpoints]]\nname = "box{at}"\nurl = "{url}"\n' for at, url in enumerate(urls)]
    file = folder / "llamasup.toml"
    file.write_text(f'[server]\nlisten = "{listen}"\n' + "".join(entries))
    return file


async def test_it_says_what_each_has_and_whether_llamasup_itself_answers(tmp_path: Path) -> None:
    with Elsewhere(tmp_path, "box") as box:
        await box.is_ready()
        async with running({"endpoints": [box.entry]}) as llamasup:
            url = f"http://127.0.0.1:{box.port}"
            done = await pinged(configured(tmp_path, url, listen=str(llamasup.address)))
    lines = done.stdout.decode().splitlines()
    assert done.returncode == 0, done.stderr
    assert lines[0].startswith("box0")
    assert "1 model: far.gguf" in lines[0]
    assert lines[1].startswith("llamasup")
    assert " ok " in lines[1]


async def test_what_only_starts_is_waited_for_and_what_is_away_is_told(tmp_path: Path) -> None:
    box = Elsewhere(tmp_path, "box", "--fake-load-seconds", "1")
    url = f"http://127.0.0.1:{box.port}"
    with box:
        done = await pinged(configured(tmp_path, url), "box0")
    assert (done.returncode, done.stdout.decode().split()[2]) == (0, "ok")
    away = configured(tmp_path, f"http://127.0.0.1:{free_port()}")
    done = await pinged(away, "--wait", "0", "box0")
    assert done.returncode == 1
    assert "failed  Connection refused" in done.stdout.decode()


async def test_an_unknown_name_is_told_which_there_are(tmp_path: Path) -> None:
    done = await pinged(configured(tmp_path, "http://box"), "bxo")
    assert done.returncode == 2
    assert 'no endpoint "bxo"; there are: box0, llamasup' in done.stderr.decode()
