"""Over TLS everything is as it is without: streams, large bodies, clients that leave, cut answers.

And what only TLS brings: certificates that are renewed, handshakes, and clients that know nothing
of it.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import pytest
import trio
import trustme
from attrs import frozen

from llamasup.config.addresses import TcpAddress, UnixAddress
from tests.harness import (
    PATIENCE,
    Client,
    Journal,
    Llamasup,
    Reply,
    chat,
    counted,
    eventually,
    loop_holdups,
    request,
    running,
    started,
    tasks,
)

CHAT = "/v1/chat/completions"
Faking = Callable[..., Mapping[str, object]]


@frozen
class Tls:
    """A certificate's files, and who trusts it."""

    folder: Path
    authority: trustme.CA
    trust: ssl.SSLContext

    def write(self) -> None:
        leaf = self.authority.issue_cert("127.0.0.1")
        leaf.private_key_and_cert_chain_pem.write_to_path(self.folder / "both.pem")

    @property
    def settings(self) -> dict[str, object]:
        return {
            "server.listen": ["https://127.0.0.1:0"],
            "server.tls_certificate": str(self.folder / "both.pem"),
        }


@pytest.fixture
def tls(tmp_path: Path, authority: trustme.CA) -> Tls:
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = Tls(tmp_path, authority, trust)
    tls.write()
    return tls


class TlsClient(Client):
    """A raw connection over TLS."""

    def __init__(self, address: TcpAddress, trust: ssl.SSLContext) -> None:
        super().__init__(address)
        self._trust = trust

    async def __aenter__(self) -> TlsClient:
        await super().__aenter__()
        self._tcp = self._stream
        secured = trio.SSLStream(self._tcp, self._trust, server_hostname="127.0.0.1")
        self._stream = secured  # type: ignore[assignment]
        await secured.do_handshake()
        self.shown = secured.getpeercert(binary_form=True)
        return self

    def leave_by_fin(self) -> None:
        self._tcp.socket.close()


async def ask(llamasup: Llamasup, tls: Tls, tokens: int = 3, **more: object) -> Reply:
    with trio.fail_after(PATIENCE):
        async with TlsClient(llamasup.address, tls.trust) as client:
            await client.send(request("POST", CHAT, chat(tokens, **more)))
            return await client.reply()


async def test_curl_and_httpx_are_answered_by_a_real_engine(
    counting: dict[str, object], tls: Tls
) -> None:
    async with running({**counting, **tls.settings}) as llamasup:
        url = f"{llamasup.address}{CHAT}"
        assert url.startswith("https://")
        curl = ["curl", "-sSN", "--cacert", str(tls.folder / "ca.pem"), url]
        body = '{"messages": [{"role": "user", "content": "?"}], "max_tokens": 20, "stream": true}'
        done = await trio.run_process([*curl, "-d", body], capture_stdout=True)
        assert Reply(200, {}, done.stdout).text() == counted(20)
        assert done.stdout.endswith(b"data: [DONE]\n\n")
        async with httpx.AsyncClient(verify=tls.trust) as client:
            for _ in range(2):  # on one connection
                reply = await client.post(url, json=chat(20, stream=False), timeout=PATIENCE)
                assert reply.json()["choices"][0]["message"]["content"] == counted(20)
                assert reply.http_version == "HTTP/1.1"


async def test_large_bodies_go_both_ways(faking: Faking, tls: Tls) -> None:
    words = "word " * 800_000
    async with running({**faking("--fake-echo"), **tls.settings}) as llamasup:
        body = chat(1, stream=False, said=words)
        with trio.fail_after(PATIENCE):
            async with TlsClient(llamasup.address, tls.trust) as client:
                await client.send(request("POST", CHAT, body))
                reply = await client.reply()
        assert reply.complete
        assert words in reply.body.decode()


async def test_a_client_that_leaves_is_noticed_and_its_engine_told(
    faking: Faking, tls: Tls, journal: Journal
) -> None:
    config = {**faking("--fake-first-byte-delay", "5"), **tls.settings}
    async with running(config) as llamasup:
        async with TlsClient(llamasup.address, tls.trust) as client:
            await client.send(request("POST", CHAT, chat(3)))
            await journal.first("request")
            client.leave_by_fin()
        await eventually(lambda: not any("_attend" in task for task in tasks()), within=1)


async def test_an_answer_that_is_cut_is_known_to_be(faking: Faking, tls: Tls) -> None:
    dying = faking("--fake-die-at-byte", "40", "--fake-framing", "close")
    async with (
        running({**dying, **tls.settings}) as llamasup,
        TlsClient(llamasup.address, tls.trust) as client,
    ):
        old = request("POST", CHAT, chat(50, stream=False)).replace(b"1.1", b"1.0", 1)
        await client.send(old)
        reply = await client.reply()
    assert (reply.status, reply.complete) == (200, False)


async def test_a_client_of_plain_http_is_told_what_to_do(faking: Faking, tls: Tls) -> None:
    async with (
        running({**faking(), **tls.settings}) as llamasup,
        Client(llamasup.address) as client,
    ):
        await client.send(request("POST", CHAT, chat(3)))
        reply = await client.reply()
    assert (reply.status, reply.error["code"]) == (400, "https_required")
    assert "https://" in reply.error["message"]


async def test_other_addresses_stay_plain(faking: Faking, tls: Tls) -> None:
    path = tls.folder / "x.sock"
    listen = ["https://127.0.0.1:0", f"unix:{path}"]
    async with running({**faking(), **tls.settings, "server.listen": listen}) as llamasup:
        assert (await ask(llamasup, tls)).text() == counted(3)
        async with Client(UnixAddress(str(path))) as client:
            await client.send(request("POST", CHAT, chat(3)))
            assert (await client.reply()).text() == counted(3)


async def test_a_renewed_certificate_is_shown_to_those_who_come_while_others_stay(
    faking: Faking, tls: Tls, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("llamasup.http.certificate.PAUSE", 0.01)
    caplog.set_level("INFO")
    async with (
        running({**faking(), **tls.settings}) as llamasup,
        TlsClient(llamasup.address, tls.trust) as earlier,
    ):
        (tls.folder / "both.pem").write_text("broken")
        await eventually(lambda: "the old certificate is still shown" in caplog.text)
        tls.write()
        await eventually(lambda: "the certificate was renewed" in caplog.text)
        async with TlsClient(llamasup.address, tls.trust) as later:
            assert later.shown != earlier.shown
        await earlier.send(request("POST", CHAT, chat(3)))
        assert (await earlier.reply()).text() == counted(3)


async def test_a_stream_that_llamasup_ends_is_told_so_and_ends_as_it_should(
    faking: Faking, tls: Tls
) -> None:
    config = {**faking("--fake-token-delay", "0.05"), **tls.settings}
    flags = [f"{key}={json.dumps(value)}" for key, value in config.items()]
    flags += [f"folders.{name}={tls.folder / name}" for name in ("run", "cache", "state")]
    sets = [word for flag in flags for word in ("--set", flag)]
    async with started(*sets, "--set", "server.drain_timeout=0.2", cwd=tls.folder) as program:
        await program.hears("listens on https://")
        port = re.search(r"https://127.0.0.1:(\d+)", program.said)
        assert port
        async with TlsClient(TcpAddress("127.0.0.1", int(port[1])), tls.trust) as client:
            await client.send(request("POST", CHAT, chat(100_000)))
            await client.read_until(b" 2")
            program.process.terminate()
            assert b"llamasup is stopping" in await client.read_until(b"\r\n0\r\n\r\n")
            assert await client.read_some() == b""  # said, not cut


async def test_a_hundred_handshakes_at_once_hold_nobody_up(faking: Faking, tls: Tls) -> None:
    answers: list[str] = []

    async def come() -> None:
        answers.append((await ask(llamasup, tls)).text())

    async with running({**faking(parallel=4), **tls.settings}) as llamasup:
        await ask(llamasup, tls)
        with loop_holdups() as holdups:
            async with trio.open_nursery() as nursery:
                for _ in range(100):
                    nursery.start_soon(come)
        assert answers == [counted(3)] * 100
        assert holdups.longest("Front._attend") < 0.02


async def test_clients_that_stop_in_the_handshake_are_left_and_hold_nobody_up(
    faking: Faking, tls: Tls
) -> None:
    settings = {**tls.settings, "server.head_timeout": 0.3}
    async with running({**faking(), **settings}) as llamasup:
        silent = [socket.create_connection((llamasup.address.host, llamasup.address.port))]
        silent[0].send(b"\x16\x03\x01\x02\x00\x01")
        assert (await ask(llamasup, tls)).text() == counted(3)
        silent[0].setblocking(False)
        with trio.fail_after(PATIENCE):
            await trio.lowlevel.wait_readable(silent[0])
        assert silent[0].recv(1) == b""
        silent[0].close()
