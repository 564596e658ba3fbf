"""A certificate that was renewed is shown; one that cannot be used is told of, and not shown."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme
from attrs import field, frozen
from cryptography.hazmat.primitives import serialization

from llamasup.config.in_effect import InEffect
from llamasup.config.schema import Config, Server
from llamasup.errors import OperatorError
from llamasup.events import CertificateRefused, CertificateRenewed, Event, Journal
from llamasup.http.certificate import Certificate, shown_by
from tests.harness import eventually


@frozen
class Files:
    """A certificate's two files."""

    folder: Path
    authority: trustme.CA

    @property
    def settings(self) -> Server:
        return Server(
            listen="https://:0",
            tls_certificate=self.folder / "chain.pem",
            tls_key=self.folder / "key.pem",
        )

    def write(self) -> trustme.LeafCert:
        leaf = self.authority.issue_cert("localhost")
        self.put("key.pem", leaf.private_key_pem.bytes())
        self.put("chain.pem", b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        return leaf

    def put(self, name: str, content: bytes) -> None:
        (self.folder / "draft").write_bytes(content)
        (self.folder / "draft").replace(self.folder / name)


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    files = Files(tmp_path, authority)
    files.write()
    return files


@frozen
class Stage:
    certificate: Certificate
    told: list[Event] = field(factory=list)

    async def hears(self, *kinds: type[Event]) -> None:
        await eventually(lambda: [type(event) for event in self.told] == list(kinds))


@asynccontextmanager
async def following(files: Files) -> AsyncIterator[Stage]:
    journal = Journal()
    stage = Stage(Certificate(await shown_by(files.settings), journal))
    in_effect = InEffect(Config(server=files.settings))
    with journal.heard_by(stage.told.append, CertificateRenewed, CertificateRefused):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stage.certificate.follow, in_effect)
            yield stage
            nursery.cancel_scope.cancel()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow one another quickly."""
    monkeypatch.setattr("llamasup.http.certificate.PAUSE", 0.01)


async def test_a_renewed_certificate_is_shown(files: Files) -> None:
    async with following(files) as stage:
        before = stage.certificate.context
        files.write()
        await stage.hears(CertificateRenewed)
        assert stage.certificate.context is not before


async def test_what_is_no_certificate_is_told_of_once_and_the_next_good_one_is_shown(
    files: Files,
) -> None:
    async with following(files) as stage:
        before = stage.certificate.context
        files.put("chain.pem", b"broken")
        await stage.hears(CertificateRefused)
        await trio.sleep(0.1)
        await stage.hears(CertificateRefused)
        assert stage.certificate.context is before
        files.write()
        await stage.hears(CertificateRefused, CertificateRenewed)


async def test_a_key_that_comes_later_than_its_certificate_is_waited_for(files: Files) -> None:
    leaf = files.authority.issue_cert("localhost")
    async with following(files) as stage:
        files.put("chain.pem", leaf.cert_chain_pems[0].bytes())
        await stage.hears(CertificateRefused)
        assert "the key does not belong to the certificate" in str(stage.told)
        files.put("key.pem", leaf.private_key_pem.bytes())
        await stage.hears(CertificateRefused, CertificateRenewed)


async def test_files_that_vanish_are_told_of_and_what_was_shown_is_shown_on(files: Files) -> None:
    async with following(files) as stage:
        (files.folder / "key.pem").unlink()
        await stage.hears(CertificateRefused)
        assert "No such file" in str(stage.told)
        assert stage.certificate.context


async def test_one_file_may_hold_both(files: Files) -> None:
    both = files.folder / "both.pem"
    both.write_bytes(
        (files.folder / "key.pem").read_bytes() + (files.folder / "chain.pem").read_bytes()
    )
    assert await shown_by(Server(listen="https://:0", tls_certificate=both))


async def test_without_a_certificate_nothing_is_shown() -> None:
    assert await shown_by(Server()) is None


async def test_a_certificate_that_cannot_be_used_says_why(files: Files) -> None:
    stranger = trustme.CA().issue_cert("x").private_key_pem.bytes()
    key = serialization.load_pem_private_key(stranger, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    for content, why in (
        (stranger, "does not belong to the certificate"),
        (locked, "under a password"),
        (b"", "no certificate with its key"),
    ):
        files.put("key.pem", content)
        with pytest.raises(OperatorError, match=why):
            await shown_by(files.settings)


async def test_a_fifo_is_no_certificate_and_is_not_waited_for(files: Files) -> None:
    (files.folder / "key.pem").unlink()
    os.mkfifo(files.folder / "key.pem")
    with pytest.raises(OperatorError, match="no regular file"):
        await shown_by(files.settings)
