"""The programs of `examples/clients`, as they stand, against each real engine.

They need what the extra `clients` of pyproject.toml and examples/clients/package-lock.json name:

    pip install -e '.[test,clients]' && npm ci --prefix examples/clients
    python -m pytest tests/clients
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
import trustme

from tests.clients.models import configuration
from tests.harness import REPOSITORY, counted, running

PROGRAMS = REPOSITORY / "examples" / "clients"
PATIENCE = 120.0
KEY = "a-key-of-more-than-16-letters"

COUNTED = counted(5)
CALL = '{"city": "Paris"}'
VECTORS = "embeddings: 128 128"
LEFT = "left: free again"

SAYS: dict[str, list[str]] = {
    "openai_sync.py": [
        "models: count embed slow tools",
        f"stream:{COUNTED}",
        "usage: 5",
        f"tool: weather {CALL}",
        "schema: Sum",
        f"logprobs:{counted(2)}",
        VECTORS,
        f"responses:{counted(3)}",
        f"responses stream:{counted(3)}",
        "error: model_not_found",
        "mistake: BadRequestError",
        LEFT,
        "timeout: APITimeoutError",
        "full: queue_full",
        "came again: True length",
    ],
    "openai_async.py": [
        f"at once:{counted(3)}{counted(4)}",
        "embeddings: 128",
        "error: model_not_found",
        LEFT,
        "timeout: APITimeoutError",
    ],
    "openai.mjs": [
        f"stream:{COUNTED}",
        f"tool: weather {CALL}",
        "schema: boolean",
        f"logprobs:{counted(2)}",
        VECTORS,
        "error: true model_not_found",
        LEFT,
        "timeout: true",
    ],
    "anthropic_sync.py": [
        f"stream:{COUNTED}",
        "usage: 5",
        "tool: weather {'city': 'Paris'}",
        "tokens: True",
        "error: not_found_error",
        LEFT,
        "timeout: APITimeoutError",
    ],
    "anthropic_async.py": [
        f"at once:{counted(3)}{counted(4)}",
        "error: not_found_error",
        LEFT,
    ],
    "anthropic.mjs": [
        f"stream:{COUNTED}",
        "usage: 5",
        'tool: weather {"city":"Paris"}',
        "error: true",
        LEFT,
        "timeout: true",
    ],
    "langchain_chat.py": [
        f"stream:{COUNTED}",
        "tool: rain in Paris",
        "schema: Sum",
        f"logprobs:{counted(2)}",
        VECTORS,
        "error: model_not_found",
        LEFT,
        "timeout: told",
    ],
    "llama_index_chat.py": [
        f"stream:{COUNTED}",
        f"chat:{COUNTED}",
        "tool: rain in Paris",
        "schema: Sum",
        VECTORS,
        "error: model_not_found",
        LEFT,
    ],
    "litellm_chat.py": [
        f"stream:{COUNTED}",
        f"tool: weather {CALL}",
        "schema: True",
        f"logprobs:{counted(2)}",
        VECTORS,
        "error none: NotFoundError",
        "error count: BadRequestError",
        LEFT,
        "timeout: Timeout",
    ],
    "instructor_extract.py": ["schema: Sum", "tool: city='Paris'", "partial: Sum"],
    "ai_sdk.mjs": [
        f"stream:{COUNTED}",
        "tool: rain in Paris",
        "schema: boolean",
        VECTORS,
        "error: true 404",
        LEFT,
    ],
    "ollama_sync.py": [
        "models: count embed slow tools",
        f"stream:{COUNTED}",
        "tool: rain in Paris",
        "schema: True",
        VECTORS,
        "error: 404",
        LEFT,
        "timeout: ReadTimeout",
    ],
    "ollama.mjs": [
        f"stream:{COUNTED}",
        'tool: weather {"city":"Paris"}',
        VECTORS,
        "error: 404",
        "aborted: AbortError",
        LEFT,
    ],
}
"""What each program says, line by line."""

RUNNERS = {".py": sys.executable, ".mjs": "node", ".sh": "sh"}


@pytest.fixture
def settings(engine: str, tmp_path: Path) -> dict[str, object]:
    return configuration(engine, tmp_path)


async def said(program: str, environ: Mapping[str, str], *arguments: str) -> list[str]:
    """What a program says, which has to end well."""
    done = await ran(program, environ, *arguments)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout.decode().splitlines()


async def ran(
    program: str, environ: Mapping[str, str], *arguments: str
) -> subprocess.CompletedProcess[bytes]:
    with trio.fail_after(PATIENCE):
        return await trio.run_process(
            [RUNNERS[Path(program).suffix], program, *arguments],
            cwd=PROGRAMS,
            env={**os.environ, **environ},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


@pytest.mark.parametrize("program", SAYS)
async def test_a_program_says_what_it_should(program: str, settings: dict[str, object]) -> None:
    async with running(settings) as llamasup:
        assert await said(program, {"LLAMASUP_URL": llamasup.url}) == SAYS[program]


@pytest.mark.parametrize(
    "program", ["openai_sync.py", "openai.mjs", "anthropic_sync.py", "anthropic.mjs"]
)
async def test_where_there_are_keys_they_are_needed_and_their_lack_is_an_error_of_its_own(
    program: str, settings: dict[str, object]
) -> None:
    async with running({**settings, "keys.ann.key": KEY}) as llamasup:
        environ = {"LLAMASUP_URL": llamasup.url}
        refused = await ran(program, environ)
        assert refused.returncode
        assert b"AuthenticationError" in refused.stderr
        assert await said(program, {**environ, "LLAMASUP_KEY": KEY}) == SAYS[program]


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path) -> dict[str, object]:
    """The configuration of llamasup over TLS; the authority lies in `ca.pem`."""
    certificate = tmp_path / "certificate.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return {"server.listen": ["https://127.0.0.1:0"], "server.tls_certificate": str(certificate)}


async def test_httpx_is_answered_over_tls(
    settings: dict[str, object], tls: dict[str, object], tmp_path: Path
) -> None:
    async with running({**settings, **tls}) as llamasup:
        environ = {"LLAMASUP_URL": str(llamasup.address), "LLAMASUP_CA": str(tmp_path / "ca.pem")}
        assert await said("httpx_tls.py", environ) == [
            f"chat:{COUNTED}",
            "protocol: HTTP/1.1",
            f"stream:{COUNTED}",
            LEFT,
            "stranger: True",
        ]


@pytest.mark.parametrize("secure", [False, True])
async def test_curl_is_answered(
    settings: dict[str, object], tls: dict[str, object], secure: bool, tmp_path: Path
) -> None:
    async with running({**settings, **(tls if secure else {})}) as llamasup:
        url = str(llamasup.address) if secure else llamasup.url
        trust = ["--cacert", str(tmp_path / "ca.pem")] if secure else []
        whole, *events, status = await said("curl.sh", {"LLAMASUP_URL": url}, *trust)
    assert f'"content":"{counted(3)}"' in whole
    assert [event for event in events if event][-1] == "data: [DONE]"
    assert status == "status for curl --fail: 22"


def test_every_program_is_run() -> None:
    there = {path.name for path in PROGRAMS.iterdir() if path.suffix in RUNNERS}
    assert there == {*SAYS, "httpx_tls.py", "curl.sh"}
